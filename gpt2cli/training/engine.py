"""The training engine: a generator that takes optimizer steps, and yields an event for each.

It writes nothing but checkpoints and prints nothing. Its caller shows and stores the events.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gpt2cli.config import SamplingConfig
from gpt2cli.data.batches import kinds_of, make_rows, seed_for, steps_per_epoch
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.errors import CheckpointError, DataError, ResourceError
from gpt2cli.generation.text import complete
from gpt2cli.model.device import peak_rss_mb, repeatable
from gpt2cli.model.gpt import GPT
from gpt2cli.training import divergence, state
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Saved, Started, Step
from gpt2cli.training.half_copy import HalfCopy
from gpt2cli.training.job import Job as Job
from gpt2cli.training.loss import SequenceLoss
from gpt2cli.training.optim import Optimizer, learning_rate
from gpt2cli.training.sampled_softmax import SAMPLED_SHARE, Negatives
from gpt2cli.training.step_batch import StepBatch, read_batch

SAMPLE = SamplingConfig(max_new_tokens=60, temperature=0, repetition_penalty=1.2)


def train(job: Job) -> Iterator[Event]:
    """Train `job.model` in place; yield what happens, the last event being Finished.

    Raises DataError if there is nothing to train on, CheckpointError if `job.resume` is of another run, and
    ResourceError if a checkpoint cannot be written. Raises DivergedError before a step whose loss or gradient is not
    finite, after an evaluation whose loss is not, and before weights are saved that are not.
    """
    if not len(job.train):
        raise DataError("no record is left to train on: give more data, or a smaller --val-fraction")
    run = _Run(job)
    yield from run.begin()
    while run.now.step < job.total_steps and not run.out_of_patience():
        yield run.take_step()
        stopping = bool(job.ranks.sum(float(job.should_stop()))[0])
        last = run.now.step == job.total_steps
        yield from run.evaluate(last)  # before saving: a killed run's continuation tells of it once more
        yield from run.sample(last)
        yield from run.save(last or stopping or run.out_of_patience())
        if stopping and not last:
            yield run.finish("interrupted")
            return
    yield run.finish("patience" if run.out_of_patience() else "done")


def compile_blocks(model: GPT, changing: bool) -> None:
    """Compile each block: on CUDA the whole of it, elsewhere its MLP, two thirds of the work.

    Elsewhere, attention over packed rows changes its shape at every step. All blocks share what is compiled for one.
    `changing` says whether rows have many different lengths, as records give, unlike blocks of text.
    """
    for block in model.h:
        if model.wte.weight.device.type == "cuda":
            block.compile(dynamic=True if changing else None)
        else:
            block.mlp.compile(dynamic=True)  # type: ignore[union-attr]


class _Run:
    """A job under way: what `train` goes through in order, each part a screen."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.now = state.Counters()
        self.device = job.model.wte.weight.device
        self.optimizer = Optimizer(job.model, job.config)
        job.model.eval()  # without dropout except inside a step: a new model begins in training mode
        self.half = HalfCopy(job.model, job.autocast) if job.half_copy and job.autocast else None
        self.trained = self.half.model if self.half else job.model
        if job.compiled:
            compile_blocks(self.trained, changing=len(set(job.train.lengths.tolist())) > 2)
        self.loss: nn.Module = SequenceLoss(
            self.trained, compiled=job.compiled and self.device.type == "cuda", recompute=job.recompute
        )
        self.kinds = kinds_of(job.train)
        self.upcoming: StepBatch | None = None
        self.negatives = None
        if job.config.sampled_softmax:
            self.negatives = Negatives(job.train, job.model.config.vocab_size, job.config.sampled_softmax)
        if job.ranks.world_size > 1:
            self.loss = nn.parallel.DistributedDataParallel(self.loss, gradient_as_bucket_view=True)

    def begin(self) -> Iterator[Event]:
        job = self.job
        if job.resume:
            changed = state.differences(job.resume.identity, job.identity)
            if changed:
                raise CheckpointError(
                    f"cannot resume {job.resume.path}: {'; '.join(changed)}: start a new run, or undo that"
                )
            state.restore(job.model, self.optimizer, job.resume)
            if self.half:
                self.half.refresh()
            self.now = job.resume.counters
        parameters = list(job.model.parameters())
        yield Started(
            self.now.step,
            job.total_steps,
            -(-job.total_steps // steps_per_epoch(len(job.train), job.records_per_step)),
            len(job.train),
            len(job.val) if job.val else 0,
            sum(p.numel() for p in parameters if p.requires_grad),
            sum(p.numel() for p in parameters),
        )
        if self.now.step == 0:
            yield from self.evaluate(at_start=True)

    def take_step(self) -> Step:
        """One optimizer step: the loss is the mean over all tokens that count in it, over passes and processes."""
        job, start = self.job, time.perf_counter()
        batch = self.upcoming or read_batch(job, self.kinds, self.now.step, self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_for("dropout", job.config.seed, self.now.step, job.ranks.rank))
            losses = self.accumulate(batch)
        norm = self.optimizer.gradient_norm()
        self.upcoming = None
        if self.device.type != "cpu" and self.now.step + 1 < job.total_steps:
            # while the device is still busy
            self.upcoming = read_batch(job, self.kinds, self.now.step + 1, self.device)
        loss = job.ranks.sum(sum(losses.tolist()))[0] / max(1, batch.n_targets)
        grad_norm = float(norm)
        lr = learning_rate(self.now.step, job.total_steps, job.config)
        divergence.check_step(self.now.step + 1, loss, grad_norm, batch.records, job.checkpoints)
        self.optimizer.step(lr, grad_norm)
        if self.half:
            self.half.refresh()
        seconds, tokens = time.perf_counter() - start, batch.n_tokens
        self.now.count(loss, batch.n_targets, tokens, seconds)
        epoch = self.now.step / steps_per_epoch(len(job.train), job.records_per_step)
        smoothed = loss if self.now.train_loss is None else self.now.train_loss
        return Step(self.now.step, epoch, loss, smoothed, lr, grad_norm, tokens, batch.n_targets, tokens / seconds)

    def accumulate(self, batch: StepBatch) -> Tensor:
        """Leave the gradients of the step's mean loss with the parameters; return the summed losses of the rows."""
        job, losses = self.job, []
        self.trained.train()
        weight = 1.0 if batch.counts else 0.0
        negatives = self.draw_negatives()
        for i, row in enumerate(batch.rows):
            autocast = nullcontext() if self.half else self.autocast()
            with self.no_sync(i < len(batch.rows) - 1), autocast, repeatable(self.device):
                loss = self.loss(row, negatives)
                # DistributedDataParallel averages over the processes, hence the factor
                (loss * (weight * job.ranks.world_size / max(1, batch.n_targets))).backward()
            if self.half:
                self.half.collect()
            losses.append(weight * loss.detach())
        self.trained.eval()
        return torch.stack(losses)

    def draw_negatives(self) -> tuple[Tensor, Tensor] | None:
        """The tokens that this step learns against, the same in every pass and process; None for all there are."""
        if self.negatives is None or self.now.step >= SAMPLED_SHARE * self.job.total_steps:
            return None
        return self.negatives.draw(seed_for("negatives", self.job.config.seed, self.now.step), self.device)

    def no_sync(self, wanted: bool) -> AbstractContextManager[Any]:
        if wanted and isinstance(self.loss, nn.parallel.DistributedDataParallel):
            return self.loss.no_sync()
        return nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        dtype = self.job.autocast
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    def evaluate(self, last: bool = False, at_start: bool = False) -> Iterator[Event]:
        """The loss on the validation split, where it is time for it."""
        every = self.job.every(self.job.config.eval_every)
        if not self.job.val or not every or not (at_start or last or self.now.step % every == 0):
            return
        value = mean_loss(self.job.model, self.job.val, self.job.max_tokens, self.autocast(), self.job.ranks)
        divergence.check_validation(self.now.step, value, self.job.checkpoints)
        best = self.now.best_val_loss is None or value < self.now.best_val_loss
        self.now.val_loss, self.now.val_step = value, self.now.step
        self.now.worse_evaluations = 0 if best else self.now.worse_evaluations + 1
        if best:
            self.now.best_val_loss, self.now.best_val_step = value, self.now.step
        yield Evaluated(self.now.step, self.now.tokens_seen, value, best)

    def sample(self, last: bool) -> Iterator[Event]:
        """Answers to the fixed prompts, where it is time for them."""
        every = self.job.every(self.job.config.sample_every)
        if not self.job.prompts or not every or not (last or self.now.step % every == 0):
            return
        answers = complete(self.job.model, [prompt for _, prompt in self.job.prompts], SAMPLE)
        shown = [shown for shown, _ in self.job.prompts]
        yield Sampled(self.now.step, list(zip(shown, (answer.text for answer in answers), strict=True)))

    def save(self, last: bool) -> Iterator[Event]:
        """A checkpoint, where it is time for one."""
        every = self.job.every(self.job.config.save_every)
        if not last and (not every or self.now.step % every):
            return
        divergence.check_weights(self.now.step, self.job.model, self.job.checkpoints)
        if self.job.checkpoints is None or not every:
            return
        if self.job.ranks.is_first:
            try:
                path = state.save_state(
                    self.job.checkpoints, self.job.model, self.optimizer, self.now, self.job.identity
                )
            except (OSError, SafetensorError) as error:
                where, why = self.job.checkpoints, getattr(error, "strerror", None) or error
                raise ResourceError(f"cannot save to {where} ({why}): the last checkpoint is intact") from None
            yield Saved(self.now.step, path)
        self.job.ranks.wait()

    def out_of_patience(self) -> bool:
        return 0 < self.job.config.patience <= self.now.worse_evaluations

    def finish(self, reason: str) -> Finished:
        now = self.now
        rate = now.tokens_seen / now.train_seconds if now.train_seconds else 0.0
        return Finished(
            now.step,
            now.tokens_seen,
            now.train_seconds,
            rate,
            peak_rss_mb(),
            now.train_loss,
            now.val_loss,
            now.val_step,
            now.best_val_loss,
            now.best_val_step,
            reason,
        )


@torch.no_grad()
def mean_loss(
    model: GPT, data: TokenDataset, max_tokens: int, autocast: AbstractContextManager[Any], ranks: Ranks
) -> float:
    """The mean loss, in nats, over all tokens of `data` that count; each process reads its share."""
    mine = list(range(len(data)))[ranks.rank :: ranks.world_size]
    losses, n = [], 0
    with autocast:
        for row in make_rows(data, mine, max_tokens, model.wte.weight.device):
            losses.append(SequenceLoss(model)(row))
            n += len(row.targets)
    total, count = ranks.sum(sum(torch.stack(losses).tolist()) if losses else 0.0, n)
    return total / count
