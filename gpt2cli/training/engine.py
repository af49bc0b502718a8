"""The training engine: a generator that takes optimizer steps, and tells of each.

It neither prints nor writes anything but checkpoints; whoever iterates over it shows and stores the events.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gpt2cli.config import SamplingConfig, TrainConfig
from gpt2cli.data.batches import Row, kinds_of, make_rows, records_of_step, seed_for, steps_per_epoch
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.errors import CheckpointError, DataError, DivergedError, ResourceError
from gpt2cli.generation.text import complete
from gpt2cli.model.device import peak_rss_mb, repeatable
from gpt2cli.model.gpt import GPT
from gpt2cli.training import state
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Saved, Started, Step
from gpt2cli.training.half_copy import HalfCopy
from gpt2cli.training.loss import SequenceLoss
from gpt2cli.training.optim import Optimizer, learning_rate
from gpt2cli.training.sampled import SAMPLED_SHARE, Negatives

SAMPLE = SamplingConfig(max_new_tokens=60, temperature=0, repetition_penalty=1.2)


@dataclass
class Job:
    """Everything that a run is made of.

    autocast      the type to compute in, None for the weights' own
    max_tokens    in one forward pass, more than which a batch is split
    prompts       (what to show, what the model reads) of the samples
    identity      settings and data, which a resumed run must share
    compiled      whether to compile the blocks, and on CUDA what the loss computes for every logit
    half_copy     whether to compute in a copy of the model in `autocast`'s type, in place of autocast
    checkpoints   where to save, None for nowhere
    should_stop   asked after every step: whether to save and leave
    """

    model: GPT
    train: TokenDataset
    val: TokenDataset | None
    config: TrainConfig
    ranks: Ranks = field(default_factory=Ranks)
    autocast: torch.dtype | None = None
    max_tokens: int = 1024
    prompts: list[tuple[str, str]] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    checkpoints: Path | None = None
    resume: state.Resumable | None = None
    should_stop: Callable[[], bool] = lambda: False
    compiled: bool = False
    half_copy: bool = False

    @property
    def records_per_step(self) -> int:
        return self.config.batch_size * self.config.grad_accum * self.ranks.world_size

    @property
    def total_steps(self) -> int:
        if self.config.max_steps is not None:
            return self.config.max_steps
        return self.config.epochs * steps_per_epoch(len(self.train), self.records_per_step)

    def every(self, steps: int | None) -> int:
        """The interval that a setting means: None is a tenth of the run."""
        return max(1, self.total_steps // 10) if steps is None else steps


def train(job: Job) -> Iterator[Event]:
    """Train `job.model` in place; yield what happens, the last event being Finished.

    Raises DataError if there is nothing to train on; DivergedError before a step whose loss or gradient is not finite,
    and before saving weights that are not finite or have a validation loss that is not; CheckpointError if `job.resume`
    is of another run; and ResourceError if a checkpoint cannot be written.
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


@dataclass(frozen=True)
class _Batch:
    """What a step reads: all its records, this process's rows, whether these count, and over how many tokens."""

    records: list[int]
    rows: list[Row]
    counts: bool
    n_tokens: int
    n_targets: int


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
        self.loss: nn.Module = SequenceLoss(self.trained, job.compiled and self.device.type == "cuda")
        self.kinds = kinds_of(job.train)
        self.upcoming: _Batch | None = None
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
        batch = self.upcoming or self.read_batch(self.now.step)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_for("dropout", job.config.seed, self.now.step, job.ranks.rank))
            losses = self.accumulate(batch)
        norm = self.optimizer.gradient_norm()
        self.upcoming = None
        if self.device.type != "cpu" and self.now.step + 1 < job.total_steps:
            self.upcoming = self.read_batch(self.now.step + 1)  # while the device is still busy
        loss = job.ranks.sum(sum(losses.tolist()))[0] / max(1, batch.n_targets)
        grad_norm = float(norm)
        lr = learning_rate(self.now.step, job.total_steps, job.config)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            shown = ", ".join(map(str, sorted(batch.records)[:8])) + (", ..." if len(batch.records) > 8 else "")
            raise DivergedError(
                f"loss {loss}, gradient norm {grad_norm} at step {self.now.step + 1} (training records {shown}): "
                f"lower --lr, or look at these records{self.what_stays()}"
            )
        self.optimizer.step(lr, grad_norm)
        if self.half:
            self.half.refresh()
        seconds, tokens = time.perf_counter() - start, batch.n_tokens
        self.now.count(loss, batch.n_targets, tokens, seconds)
        epoch = self.now.step / steps_per_epoch(len(job.train), job.records_per_step)
        smoothed = loss if self.now.train_loss is None else self.now.train_loss
        return Step(self.now.step, epoch, loss, smoothed, lr, grad_norm, tokens, batch.n_targets, tokens / seconds)

    def read_batch(self, step: int) -> "_Batch":
        """The records of a step, and this process's rows of them."""
        job = self.job
        records = records_of_step(self.kinds, job.records_per_step, step, job.config.seed)
        lengths = job.train.lengths[records]
        n_targets = int((lengths - job.train.loss_from[records]).sum())
        mine = records[job.ranks.rank :: job.ranks.world_size]
        passes = [mine[i : i + job.config.batch_size] for i in range(0, len(mine), job.config.batch_size)]
        rows = [row for chosen in passes for row in make_rows(job.train, chosen, job.max_tokens, self.device)]
        counts = bool(rows)
        # a process without a record of its own still has to meet the others
        rows = rows or make_rows(job.train, records[:1], job.max_tokens, self.device)
        return _Batch(records, rows, counts, int(lengths.sum()), n_targets)

    def accumulate(self, batch: "_Batch") -> Tensor:
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
        if not math.isfinite(value):
            if at_start:
                raise DivergedError(f"validation loss {value} before the first step: begin from another model")
            raise DivergedError(
                f"validation loss {value} after step {self.now.step}: start a new run with a lower --lr"
                f"{self.what_stays()}"
            )
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
        if last or (every and self.now.step % every == 0):
            self.check_weights()
        if self.job.checkpoints is None or not every or not (last or self.now.step % every == 0):
            return
        if self.job.ranks.is_first:
            try:
                path = state.save_state(
                    self.job.checkpoints, self.job.model, self.optimizer, self.now, self.job.identity
                )
            except (OSError, SafetensorError) as error:
                where, why = self.job.checkpoints, getattr(error, "strerror", None) or error
                raise ResourceError(f"cannot save to {where} ({why}): the checkpoint before is intact") from None
            yield Saved(self.now.step, path)
        self.job.ranks.wait()

    def check_weights(self) -> None:
        """Raise DivergedError if a weight is not finite: nobody could open a file of such weights."""
        trained = [p.detach() for p in self.job.model.parameters() if p.requires_grad]
        largest = torch.stack([value.float() for value in torch._foreach_norm(trained, math.inf)])
        if not bool(largest.isfinite().all()):
            raise DivergedError(
                f"the weights after step {self.now.step} are not finite: start a new run with a lower --lr"
                f"{self.what_stays()}"
            )

    def what_stays(self) -> str:
        """The end of a message: which checkpoints there are."""
        kept = state.checkpoints(self.job.checkpoints) if self.job.checkpoints else []
        return f"; what was saved stays: {', '.join(map(str, kept))}" if kept else ""

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
