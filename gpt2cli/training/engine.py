"""The training engine: a generator that takes optimizer steps, and yields an event after each.

It writes only checkpoints, and prints nothing. Its caller shows and stores the events. The docstring of resuming.py
explains why a resumed run learns the same weights as an unbroken one.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gpt2cli.data.batches import kinds_of, seed_for, steps_per_epoch
from gpt2cli.errors import DataError
from gpt2cli.model.device import repeatable
from gpt2cli.model.peak_memory import peak_rss_mb
from gpt2cli.training import divergence
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Saved, Started, Step, smoothed_steps
from gpt2cli.training.forward import compile_blocks
from gpt2cli.training.half_copy import HalfCopy
from gpt2cli.training.job import Job, StepBatch, read_batch
from gpt2cli.training.loss import SequenceLoss
from gpt2cli.training.optim import Optimizer, learning_rate, steps_before_fall
from gpt2cli.training.resuming import check_identity
from gpt2cli.training.rhythm import Due, rhythm_of
from gpt2cli.training.run_checkpoints import restore, save_state
from gpt2cli.training.sample_prompts import answer
from gpt2cli.training.sampled_softmax import SAMPLED_SHARE, Negatives
from gpt2cli.training.state_json import Counters
from gpt2cli.training.validation import mean_loss


def train(job: Job) -> Iterator[Event]:
    """Train `job.model` in place, and yield an event for everything that happens. The last event is Finished.

    Raises DataError if there are no records, CheckpointError if `job.resume` belongs to another run, and ResourceError
    if a checkpoint cannot be written. Raises DivergedError before a step whose loss or gradient is not finite, after
    an evaluation whose loss is not finite, and before weights that are not finite are saved.
    """
    if not len(job.train):
        raise DataError("no record is left to train on: give more data, or a smaller --val-fraction")
    loop = _Loop(job)
    yield from loop.begin()
    while loop.now.step < job.total_steps and not loop.out_of_patience():
        yield loop.take_step()
        due, stopping = loop.agree()
        if due.evaluate:  # before saving: if the run is killed here, the resumed run evaluates again
            yield from loop.evaluate()
        at_end = loop.now.step == job.total_steps or loop.out_of_patience()
        if due.sample or (at_end and job.config.sample_every != 0):
            yield from loop.sample()
        stopping = stopping and not at_end
        if stopping or at_end or due.save:
            divergence.check_weights(loop.now.step, job.model, job.checkpoints)
        if stopping or (job.keep_states if at_end else due.save):
            yield from loop.save()
        if stopping:
            yield loop.finish("interrupted")
            return
    yield loop.finish("patience" if loop.out_of_patience() else "done")


class _Loop:
    """The state of `train`, and what it does in each round."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.now = Counters()
        self.device = job.model.wte.weight.device
        self.optimizer = Optimizer(job.model, job.config)
        job.model.eval()  # dropout is on only within a step; a new model has it on
        self.half = HalfCopy(job.model, job.autocast) if job.half_copy and job.autocast else None
        self.trained = self.half.model if self.half else job.model
        if job.compiled:
            compile_blocks(self.trained, changing=len(set(job.train.lengths.tolist())) > 2)
        self.loss: nn.Module = SequenceLoss(
            self.trained, compiled=job.compiled and self.device.type == "cuda", recompute=job.recompute
        )
        self.kinds = kinds_of(job.train)
        self.steps_per_epoch = steps_per_epoch(len(job.train), job.records_per_step)
        self.upcoming: StepBatch | None = None
        sampled = job.config.sampled_softmax
        self.negatives = Negatives(job.train, job.model.config.vocab_size, sampled) if sampled else None
        if job.ranks.world_size > 1:
            self.loss = nn.parallel.DistributedDataParallel(self.loss, gradient_as_bucket_view=True)

    def begin(self) -> Iterator[Event]:
        """Restore the checkpoint, or evaluate the model before the first step."""
        job = self.job
        if job.resume:
            check_identity(job.resume, job.identity)
            restore(self.optimizer, job.resume)
            if self.half:
                self.half.refresh()
            self.now = job.resume.counters
        self.now.val_records = len(job.val or ())
        self.rhythm, self.trained_before = rhythm_of(job, self.now), self.now.train_seconds
        parameters = list(job.model.parameters())
        yield Started(
            step=self.now.step,
            total_steps=job.total_steps,
            epochs=-(-job.total_steps // self.steps_per_epoch),
            train_examples=len(job.train),
            val_examples=len(job.val or ()) if job.held_out is None else job.held_out,
            val_used=len(job.val or ()),
            plain_text=job.plain_text,
            noun=job.noun,
            samples_from_training=bool(job.prompts) and job.prompts_are_seen,
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            parameters=sum(p.numel() for p in parameters),
            before_fall=self.now.step == job.kept_step,
        )
        if self.now.step == 0 and job.config.eval_every != 0:
            yield from self.evaluate()

    def take_step(self) -> Step:
        """Take one optimizer step. Its loss is the mean over the targets of all passes and processes."""
        job, start = self.job, time.perf_counter()
        batch = self.upcoming or read_batch(job, self.kinds, self.now.step, self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_for("dropout", job.config.seed, self.now.step, job.ranks.rank))
            losses = self.accumulate(batch)
        norm = self.optimizer.gradient_norm()
        self.upcoming = None
        if self.device.type != "cpu" and self.now.step + 1 < job.total_steps:
            # the device computes the gradients meanwhile
            self.upcoming = read_batch(job, self.kinds, self.now.step + 1, self.device)
        loss = job.ranks.sum(sum(losses.tolist()))[0] / max(1, batch.n_targets)
        grad_norm = float(norm)
        lr = learning_rate(self.now.step, job.total_steps, job.config)
        divergence.check_step(
            self.now.step + 1, loss=loss, grad_norm=grad_norm, records=batch.records, checkpoints=job.checkpoints
        )
        self.optimizer.step(lr, grad_norm)
        if self.half:
            self.half.refresh()
        seconds = time.perf_counter() - start
        smoothed = smoothed_steps(job.total_steps)
        self.now.count(loss, batch.n_targets, batch.n_tokens, seconds, smoothed=smoothed)
        self.now.fall_began = self.now.step > steps_before_fall(job.total_steps, job.config)
        return Step(
            step=self.now.step,
            epoch=self.now.step / self.steps_per_epoch,
            loss=loss,
            smoothed_loss=loss if self.now.train_loss is None else self.now.train_loss,
            lr=lr,
            grad_norm=grad_norm,
            tokens=batch.n_tokens,
            targets=batch.n_targets,
            tok_s=batch.n_tokens / seconds,
        )

    def accumulate(self, batch: StepBatch) -> Tensor:
        """Add up the gradients of the step's mean loss in the parameters; return the summed loss of each row."""
        losses, weight = [], 1.0 if batch.counts else 0.0
        self.trained.train()
        # DistributedDataParallel averages over the processes, so the loss is multiplied by their number
        scale = weight * self.job.ranks.world_size / max(1, batch.n_targets)
        negatives = self.draw_negatives()
        for i, row in enumerate(batch.rows):
            autocast = nullcontext() if self.half else self.autocast()
            with self.no_sync(i < len(batch.rows) - 1), autocast, repeatable(self.device):
                loss = self.loss(row, negatives)
                (loss * scale).backward()
            if self.half:
                self.half.collect()
            losses.append(weight * loss.detach())
        self.trained.eval()
        return torch.stack(losses)

    def draw_negatives(self) -> tuple[Tensor, Tensor] | None:
        """The tokens of this step's sampled softmax, the same in all passes and processes; None: all tokens."""
        if self.negatives is None or self.now.step >= SAMPLED_SHARE * self.job.total_steps:
            return None
        return self.negatives.draw(seed_for("negatives", self.job.config.seed, self.now.step), self.device)

    def no_sync(self, wanted: bool) -> AbstractContextManager[Any]:
        """A context in which processes do not exchange gradients, if that is `wanted`; otherwise one without effect."""
        if wanted and isinstance(self.loss, nn.parallel.DistributedDataParallel):
            return self.loss.no_sync()
        return nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        dtype = self.job.autocast
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    def agree(self) -> tuple[Due, bool]:
        """What is due after this step, and whether the run is asked to end: the same in all processes.

        The clock of the first process decides.
        """
        ranks, due = self.job.ranks, self.rhythm.after(self.now.step, self.trained_here)
        mine = (due.evaluate, due.sample, due.save) if ranks.is_first else (False, False, False)
        evaluate, sample, save, stop = ranks.sum(*map(float, (*mine, self.job.should_stop())))
        return Due(bool(evaluate), bool(sample), bool(save) or self.now.step == self.job.kept_step), bool(stop)

    @property
    def trained_here(self) -> float:
        """The seconds that the steps of this process took."""
        return self.now.train_seconds - self.trained_before

    def evaluate(self) -> Iterator[Event]:
        """Compute the validation loss, if there are validation records."""
        if not self.job.val:
            return
        with self.rhythm.spending("evaluate", self.now.step, self.trained_here):
            value = mean_loss(self.job.model, self.job.val, self.job.max_tokens, self.autocast(), self.job.ranks)
            divergence.check_validation(self.now.step, value, self.job.checkpoints)
            best = self.now.count_evaluation(value)
            # a run that keeps its states may be extended: then these are not its final weights
            is_final = self.now.step == self.job.total_steps and not self.job.keep_states
            yield Evaluated(self.now.step, self.now.tokens_seen, value, best, is_final)

    def sample(self) -> Iterator[Event]:
        """Answer the sample prompts, if there are any."""
        if self.job.prompts:
            with self.rhythm.spending("sample", self.now.step, self.trained_here):
                yield Sampled(self.now.step, answer(self.job.model, self.job.prompts))

    def save(self) -> Iterator[Event]:
        """Save a checkpoint, unless the settings forbid it."""
        if self.job.config.save_every == 0 or self.job.checkpoints is None:
            return
        with self.rhythm.spending("save", self.now.step, self.trained_here):
            if self.job.ranks.is_first:
                path = save_state(self.job.checkpoints, self.optimizer, self.now, self.job.identity, self.job.kept_step)
                yield Saved(self.now.step, path, before_fall=self.now.step == self.job.kept_step)
            self.job.ranks.wait()

    def out_of_patience(self) -> bool:
        return 0 < self.job.config.patience <= self.now.worse_evaluations

    def finish(self, reason: str) -> Finished:
        now = self.now
        return Finished(
            steps=now.step,
            tokens_seen=now.tokens_seen,
            train_seconds=now.train_seconds,
            train_tok_s=now.tokens_seen / now.train_seconds if now.train_seconds else 0.0,
            peak_rss_mb=peak_rss_mb(),
            final_train_loss=now.train_loss,
            final_train_loss_steps=len(now.recent),
            final_val_loss=now.val_loss,
            final_val_step=now.val_step,
            best_val_loss=now.best_val_loss,
            best_val_step=now.best_val_step,
            reason=reason,
        )
