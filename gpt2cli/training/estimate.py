"""The plan of a run: how much it reads, how long it takes, how much memory and disk it needs, known before it begins.

The work of a step is that of its forward and backward passes and of the update (see `Pace`): each token passes through
all blocks, and each target needs the logits of the whole vocabulary. That is 6 floating-point operations for each
parameter and token, as in "Scaling Laws for Neural Language Models" (Kaplan et al. 2020, section 2.1), fewer with
frozen weights. The rows are those of steps of the run itself, so prefixes that records share count once.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from gpt2cli.data.batches import Batch, kinds_of, steps_per_epoch
from gpt2cli.training.job import Job, read_batch
from gpt2cli.training.optim import Optimizer, warmup_steps
from gpt2cli.training.pace import Workload, measure_pace
from gpt2cli.training.rhythm import SECONDS_BETWEEN_SAVES
from gpt2cli.training.run_checkpoints import KEEP
from gpt2cli.training.sampled_softmax import SAMPLED_SHARE
from gpt2cli.training.settings import Settings
from gpt2cli.training.sizes import Disk, disk_needed, free_disk, free_memory, memory_needed, same_disk

SAMPLED_STEPS = 16
"""Steps of the run whose rows are looked at."""
OVERHEAD = 1.15
"""The measured seconds of a step divided by those of its parts: reading data, allocating memory, colder caches."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will read, take and need. Bytes are those of the peak.

    device        where it computes
    noun          the word for one of its examples: a record, a conversation, or a block of text
    examples      the number of training examples
    step, steps   steps already taken, and all steps of the run
    epochs        epochs of the run, the last of which may be incomplete
    warmup        steps in which the learning rate rises, as asked
    epoch_tokens  tokens of all training examples
    tokens        tokens of the steps that are left
    seconds       of the steps that are left, without evaluations and samples
    memory        bytes at the peak; of the device, if that is not a CPU
    free_memory   bytes of memory that can be had now, including those this process has; None if not known
    disk          bytes on disk
    free_run      free bytes on the disk of the run directory
    free_out      free bytes on the disk of the final weights
    one_disk      whether both are on the same disk
    """

    device: str
    noun: str
    examples: int
    step: int
    steps: int
    epochs: int
    warmup: int
    epoch_tokens: int
    tokens: int
    seconds: float
    memory: int
    free_memory: int | None
    disk: Disk
    free_run: int | None
    free_out: int | None
    one_disk: bool

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / max(1, self.steps - self.step)


def make_plan(settings: Settings, job: Job, run: Path, device: torch.device) -> Plan:
    """The plan of the steps of a job that are left. Takes a fraction of a second, to measure the pace.

    run     the directory of the run, which need not exist
    device  where the job will compute; its model may be on the meta device
    """
    per_epoch = steps_per_epoch(len(job.train), job.records_per_step)
    step = job.resume.counters.step if job.resume else 0
    left = max(0, job.total_steps - step)
    optimizer = Optimizer(job.model, job.config)
    rows, sampled = _typical_rows(job, device, step)
    out, free = Path(settings.out), free_memory(device)
    # before a step of a miniature, whose memory is not needed later
    memory = memory_needed(job, optimizer, device, rows, sampled)
    seconds = left * _step_seconds(settings, job, optimizer, rows, sampled, device) if left else 0.0
    return Plan(
        device=str(device),
        noun=job.noun,
        examples=len(job.train),
        step=step,
        steps=job.total_steps,
        epochs=-(-job.total_steps // per_epoch),
        warmup=warmup_steps(job.total_steps, job.config),
        epoch_tokens=job.train.n_tokens,
        tokens=round(left / per_epoch * job.train.n_tokens),
        seconds=seconds,
        memory=memory,
        free_memory=free,
        disk=disk_needed(job, optimizer, settings.lora is not None, _checkpoints(settings, job, seconds)),
        free_run=free_disk(run),
        free_out=free_disk(out),
        one_disk=same_disk(run, out),
    )


def _checkpoints(settings: Settings, job: Job, seconds: float) -> int:
    """The largest number of checkpoints on disk at one time.

    A short run saves only one, if it is interrupted, besides the one from before the learning rate falls.
    """
    every = settings.train.save_every
    if every == 0:
        return 0
    # the next one is written before the oldest one is deleted
    newest = 1 if every is None and seconds < SECONDS_BETWEEN_SAVES else KEEP + 1
    return newest if job.kept_step is None else newest + 1


def _typical_rows(job: Job, device: torch.device, step: int) -> tuple[list[Batch], int]:
    """The rows of SAMPLED_STEPS steps, evenly spaced over those that are left, and the number of these steps."""
    kinds, last = kinds_of(job.train), max(step + 1, job.total_steps)
    steps = range(step, last, -(-(last - step) // SAMPLED_STEPS))
    return [row for number in steps for row in read_batch(job, kinds, number, device).rows], len(steps)


def _step_seconds(
    settings: Settings, job: Job, optimizer: Optimizer, rows: list[Batch], steps: int, device: torch.device
) -> float:
    """Seconds of a mean step: those of its tokens, of its targets and of the update."""
    config = job.model.config
    tokens, targets = sum(row.idx.shape[1] for row in rows), sum(len(row.targets) for row in rows)
    typical = sorted(rows, key=lambda row: row.idx.shape[1])[len(rows) // 2]
    work = Workload(
        config=config,
        train=job.config,
        lora=settings.lora,
        autocast=job.autocast,
        recompute=job.recompute,
        device=device,
        lengths=typical.sight.lengths,
        targets=max(1, targets // len(rows)),
    )
    pace = measure_pace(work)
    trained = sum(p.numel() for p in optimizer.trained.values())
    passes = tokens * config.n_layer * pace.token + targets * _logits_share(job) * pace.target
    return OVERHEAD * (passes / steps + trained * pace.parameter)


def _logits_share(job: Job) -> float:
    """The share of the vocabulary's logits that is computed: less than 1 with a sampled softmax."""
    sampled = job.config.sampled_softmax
    if not sampled:
        return 1.0
    return SAMPLED_SHARE * min(1.0, sampled / job.model.config.vocab_size) + 1 - SAMPLED_SHARE
