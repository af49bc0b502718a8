"""Everything that the engine needs for a run (`Job`), and what a process computes in one step (`StepBatch`)."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2cli.config import TrainConfig
from gpt2cli.data.batches import Batch, make_rows, records_of_step, steps_per_epoch
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.splits import Splits
from gpt2cli.model.device import TOKENS_PER_PASS, fast_training_dtype
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import LoRALinear
from gpt2cli.training.bf16_linear import make_lean
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.optim import steps_before_fall, warmup_steps
from gpt2cli.training.run_checkpoints import Resumable
from gpt2cli.training.sample_prompts import SamplePrompt, given_prompts, prompts_from
from gpt2cli.training.settings import Settings
from gpt2cli.training.validation import subset


@dataclass(kw_only=True)
class Job:
    """Everything that `engine.train` needs.

    autocast         the dtype of the computation; None: fp32, as the weights
    max_tokens       the most tokens of one forward pass; a larger batch is split
    held_out         the number of validation records, of which `val` may be a part
    plain_text       whether the records are blocks of plain text
    noun             the word for one of the records
    prompts          the sample prompts
    prompts_are_seen whether these are training records
    identity         settings, shape and data, which a resumed run must share
    checkpoints      the directory to save checkpoints in; None: save none
    should_stop      called after every step: whether to save and end
    compiled         whether to compile the blocks and, on CUDA, the part of the loss that reads all logits
    recompute        whether the backward pass computes the blocks again, to save memory
    half_copy        whether to compute in a copy of the model in `autocast`'s dtype, instead of autocast
    base_is_rounded  whether the frozen weights under an adapter were rounded to `autocast`'s dtype
    keep_states      whether to save a checkpoint after the last step, so that the run can be extended
    """

    model: GPT
    train: TokenDataset
    val: TokenDataset | None
    config: TrainConfig
    ranks: Ranks = field(default_factory=Ranks)
    autocast: torch.dtype | None = None
    max_tokens: int = 1024
    held_out: int | None = None  # None: all of `val`
    plain_text: bool = False
    noun: str = "record"
    prompts: list[SamplePrompt] = field(default_factory=list)
    prompts_are_seen: bool = False
    identity: dict[str, Any] = field(default_factory=dict)
    checkpoints: Path | None = None
    resume: Resumable | None = None
    should_stop: Callable[[], bool] = lambda: False
    compiled: bool = False
    recompute: bool = False
    half_copy: bool = False
    base_is_rounded: bool = False
    keep_states: bool = False

    @property
    def records_per_step(self) -> int:
        return records_per_step(self.config, self.ranks)

    @property
    def total_steps(self) -> int:
        return total_steps(self.config, len(self.train), self.ranks)

    @property
    def kept_step(self) -> int | None:
        """The step after which a checkpoint stays until the run ends: with `wsd`, the last before the fall.

        None if the learning rate does not fall like that, or as soon as the warm-up is over.
        """
        steps, warmup = steps_before_fall(self.total_steps, self.config), warmup_steps(self.total_steps, self.config)
        return steps if self.config.schedule == "wsd" and steps > warmup else None

    @property
    def train_tokens(self) -> int:
        """The tokens in all steps, about."""
        return self.train.n_tokens * self.total_steps // steps_per_epoch(len(self.train), self.records_per_step)


def records_per_step(config: TrainConfig, ranks: Ranks) -> int:
    """The records that all processes read in one step."""
    return config.batch_size * config.grad_accum * ranks.world_size


def total_steps(config: TrainConfig, examples: int, ranks: Ranks) -> int:
    """The number of optimizer steps of a run that trains on `examples` records or blocks."""
    if config.max_steps is not None:
        return config.max_steps
    return config.epochs * steps_per_epoch(examples, records_per_step(config, ranks))


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """What one process computes in a step.

    records    those of all processes
    rows       those of this process, never empty
    counts     whether the rows count in the loss; False in a process that got no record in this step
    n_tokens   tokens of all records
    n_targets  tokens of all records that count in the loss
    """

    records: list[int]
    rows: list[Batch]
    counts: bool
    n_tokens: int
    n_targets: int


def read_batch(job: Job, kinds: Tensor, step: int, device: torch.device) -> StepBatch:
    """The batch of a step, which counts from 0. `kinds` are those of `job.train`: see `batches.kinds_of`."""
    records = records_of_step(kinds, job.records_per_step, step, job.config.seed)
    lengths = job.train.lengths[records]
    mine = records[job.ranks.rank :: job.ranks.world_size]
    passes = [mine[i : i + job.config.batch_size] for i in range(0, len(mine), job.config.batch_size)]
    rows = [row for chosen in passes for row in make_rows(job.train, chosen, job.max_tokens, device)]
    return StepBatch(
        records=records,
        # every process must take part in the backward pass
        rows=rows or make_rows(job.train, records[:1], job.max_tokens, device),
        counts=bool(rows),
        n_tokens=int(lengths.sum()),
        n_targets=int(job.train.target_counts[records].sum()),
    )


def make_job(
    settings: Settings,
    model: GPT,
    splits: Splits,
    ranks: Ranks,
    device: torch.device,
    *,
    checkpoints: Path | None = None,
    resume: Resumable | None = None,
    compiled: bool = False,
) -> Job:
    """Make the job of a run, and round the weights of `model` that need no more precision.

    The job's config has the number of warm-up steps, where the settings may have None. The weights are on `device`,
    where the job computes, or on the meta device: then the job is only for a plan.
    `engine.train` checks that the settings, the shape and the data are those of `resume`.
    """
    warmup = warmup_steps(total_steps(settings.train, len(splits.train), ranks), settings.train)
    settings = replace(settings, train=replace(settings.train, warmup=warmup))
    autocast = compute_dtype(settings, device)
    identity = _identity(settings, model, splits, ranks, resume)
    if autocast:  # after the checksum of the base: the base stays the same on a device that computes in another dtype
        round_frozen(model, autocast)
        if device.type == "cpu":
            make_lean(model, autocast)
    job = Job(
        model=model,
        train=splits.train,
        val=splits.val if len(splits.val) else None,
        config=settings.train,
        ranks=ranks,
        autocast=autocast,
        max_tokens=TOKENS_PER_PASS[device.type],
        held_out=len(splits.val),
        plain_text=splits.template is None,
        noun=splits.noun,
        prompts=_sample_prompts(settings, splits),
        prompts_are_seen=not settings.sample_prompts and not len(splits.val),
        identity=identity,
        checkpoints=checkpoints,
        resume=resume,
        compiled=compiled,
        recompute=settings.grad_checkpointing,
        half_copy=autocast is not None and device.type == "cuda" and ranks.world_size == 1,
        base_is_rounded=settings.lora is not None and autocast is not None,
        keep_states=settings.keep_states,
    )
    if job.val and job.config.eval_every is None:
        job.val = subset(job.val, job.train_tokens, resume.counters.val_records if resume else None)
    return job


def _identity(settings: Settings, model: GPT, splits: Splits, ranks: Ranks, resume: Resumable | None) -> dict[str, Any]:
    """What checkpoints record, and a resumed run must share: settings, shape, data, and the frozen base."""
    shape = {name: value for name, value in asdict(model.config).items() if name != "dropout"}
    identity = settings.identity() | shape | {"data": splits.train.fingerprint(), "world_size": ranks.world_size}
    if settings.lora and not model.wte.weight.is_meta:
        identity["base"] = checksum(p for p in model.parameters() if not p.requires_grad)
    elif settings.lora and resume:
        identity["base"] = resume.identity.get("base")  # unknown without weights: taken to be the same
    return identity


def compute_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """The dtype of the forward and backward passes; None: fp32, as the weights."""
    chosen = {"fp32": None, "bf16": torch.bfloat16}
    return chosen.get(settings.precision, fast_training_dtype(device))


def round_frozen(model: GPT, dtype: torch.dtype) -> None:
    """Store layers with an adapter in this dtype: their frozen weights would be rounded to it at every step."""
    for layer in model.h.modules():
        if isinstance(layer, LoRALinear):
            layer.to_dtype(dtype)


def checksum(tensors: Iterable[Tensor]) -> int:
    """CRC-32 of the bytes of tensors: it changes when a value changes."""
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, value)
    return value


def _sample_prompts(settings: Settings, splits: Splits) -> list[SamplePrompt]:
    """The prompts to answer during the training: the user's, or else some from held-out records, if there are any."""
    if settings.train.sample_every == 0:
        return []
    if settings.sample_prompts:
        return given_prompts(settings.sample_prompts, splits.template)
    return prompts_from(splits.val if len(splits.val) else splits.train, splits.template)
