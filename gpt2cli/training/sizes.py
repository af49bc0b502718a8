"""How many bytes a run needs, in memory and on disk, and how many are free.

The sizes of weights, gradients and optimizer states are exact. Those of activations are counted for each block, as in
"Reducing Activation Recomputation in Large Transformer Models" (Korthikanti et al. 2022), with the number types and the
attention kernels that are used here.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from gpt2cli.data.batches import Batch
from gpt2cli.inference.free_memory import more_memory
from gpt2cli.model.device import LOGIT_ROWS
from gpt2cli.training.job import Job
from gpt2cli.training.optim import MUON_STATE, Optimizer

FLOAT, HALF = 4, 2
"""Bytes of a number."""
KEPT, KEPT_WITH_DROPOUT = (40, 70), (48, 82)
"""Bytes that a block keeps for the backward pass, for each token and channel, in 16 and in 32 bits.

With dropout on a CPU, torch's attention has no kernel that saves memory, and keeps more, some of it in fp32.
"""
KEPT_OF_COPIES = 8
"""Bytes kept for each channel of a shared prefix's keys and values, once for each sequence that attends to it."""
KEPT_OF_PAIRS = 12
"""Bytes kept with dropout on a CPU for each head, query and key: the attention weight, the mask, and their product."""
COPIES_OF_LOGITS = 3
"""Logits, their softmax and its gradient, in fp32."""
LIBRARIES, LATER_LIBRARIES = 290 * 2**20, 75 * 2**20
"""Bytes of Python and of the libraries of a run before its first step, at least, and of what the first step adds."""
LEFT_BEHIND, LEFT_BEHIND_BY_BATCHES = 0.2, 0.8
"""Memory that freed tensors of other sizes leave behind, as a fraction of activations and logits. Measured.

More on a CPU if sequences of the same length are one batch of attention, such as blocks of text, and dropout makes
torch keep its weights: these leave large gaps in the heap.
"""
LARGEST_IN_HEAP = 32 * 2**20
"""Bytes from which the allocator (glibc's) returns a tensor to the system when it is freed."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes on disk.

    run       the most that the run directory has at one time
    run_left  what stays there
    out       the final weights
    """

    run: int
    run_left: int
    out: int


def memory_needed(job: Job, optimizer: Optimizer, device: torch.device, rows: Sequence[Batch], steps: int) -> int:
    """The peak memory in bytes: of this process on a CPU, of the device otherwise.

    rows       all rows of some steps of the run. The largest one sets the peak.
    steps      the number of these steps
    optimizer  of `job.model`, whose weights may be on the meta device
    """
    parameters = list(job.model.parameters())
    is_loaded = not parameters[0].is_meta
    trained = sum(p.numel() for p in optimizer.trained.values())
    weights = sum(p.numel() for p in parameters) * FLOAT
    if job.autocast and trained < weights // FLOAT:  # layers with an adapter are rounded to 16 bits
        weights -= sum(p.numel() for p in job.model.h.parameters() if not p.requires_grad) * (FLOAT - HALF)
    passing, left_behind = max(_passing(job, device, row) for row in rows)
    total = weights + _state_bytes(optimizer) + passing
    if device.type != "cpu":
        return total + trained * FLOAT + left_behind + (trained * 2 * HALF if job.half_copy else 0)
    total += _gradient_bytes(optimizer, job.model.wte.weight, left_behind, accumulated=len(rows) > steps)
    libraries = psutil.Process().memory_info().rss - (sum(p.nbytes for p in parameters) if is_loaded else 0)
    libraries = max(int(libraries), LIBRARIES)
    while_loading = 2 * sum(p.numel() for p in parameters) * FLOAT  # the file and the copy that is trained
    return libraries + max(total + LATER_LIBRARIES, while_loading)


def _state_bytes(optimizer: Optimizer) -> int:
    """Bytes of the tensors that the optimizer keeps."""
    return sum(p.numel() * (1 if keys == MUON_STATE else 2) for p, keys in optimizer.keys.items()) * FLOAT


def _gradient_bytes(optimizer: Optimizer, embedding: Tensor, left_behind: int, *, accumulated: bool) -> int:
    """Bytes of the gradients, and of what freed activations leave behind, on a CPU.

    accumulated  whether a step has several rows: a later one finds the gradients of those before, and its gradient of
                 the embedding is a separate tensor. Otherwise the gradients are made where activations were.
    """
    gradients = sum(p.numel() for p in optimizer.trained.values()) * FLOAT
    if not accumulated:
        return max(gradients, left_behind)
    return gradients + left_behind + (embedding.numel() * FLOAT if embedding.requires_grad else 0)


def _passing(job: Job, device: torch.device, row: Batch) -> tuple[int, int]:
    """Bytes of activations and logits in the forward and backward pass of a row, and of what they leave behind."""
    config, tokens = job.model.config, row.idx.shape[1]
    block = _kept(job, device, row)
    in_blocks = FLOAT * tokens * config.n_embd * config.n_layer + block if job.recompute else block * config.n_layer
    logits = min(len(row.targets), LOGIT_ROWS[device.type]) * config.vocab_size * FLOAT * COPIES_OF_LOGITS
    is_one_batch = len(set(row.sight.lengths)) == 1 and not any(_seen_before(row))
    is_in_heap = _pairs(row) * config.n_head * FLOAT < LARGEST_IN_HEAP
    leaves_gaps = _keeps_attention(job, device) and is_one_batch and is_in_heap
    fraction = LEFT_BEHIND_BY_BATCHES if leaves_gaps else LEFT_BEHIND
    return in_blocks + logits, int((in_blocks + logits) * fraction)


def _keeps_attention(job: Job, device: torch.device) -> bool:
    """Whether torch keeps attention's weights for the backward pass: with dropout on a CPU."""
    return device.type == "cpu" and job.model.config.dropout > 0


def _pairs(row: Batch) -> int:
    """The pairs of a query and a key in a row, masked ones too."""
    lengths = row.sight.lengths
    return sum(length * (length + seen) for length, seen in zip(lengths, _seen_before(row), strict=True))


def _seen_before(row: Batch) -> list[int]:
    """The tokens of the shared prefix before each piece of a row."""
    return [0 if prefix is None else row.sight.lengths[prefix] for prefix in row.sight.prefixes]


def _kept(job: Job, device: torch.device, row: Batch) -> int:
    """Bytes that a block keeps for the backward pass of a row."""
    config, keeps_attention = job.model.config, _keeps_attention(job, device)
    in_16_bits, in_32_bits = KEPT_WITH_DROPOUT if keeps_attention else KEPT
    channels = row.idx.shape[1] * (in_16_bits if job.autocast else in_32_bits)
    channels += sum(_seen_before(row)) * KEPT_OF_COPIES
    pairs = _pairs(row) * KEPT_OF_PAIRS * config.n_head if keeps_attention else 0
    return channels * config.n_embd + pairs


def disk_needed(job: Job, optimizer: Optimizer, lora: bool, checkpoints: int) -> Disk:
    """The bytes that a run writes.

    checkpoints  the largest number of checkpoints at one time; a run without any does not keep the best weights
    """
    weights = sum(p.numel() for name, p in job.model.named_parameters() if "lora_" not in name) * FLOAT
    trained = sum(p.numel() for p in optimizer.trained.values()) * FLOAT
    best = trained if lora else weights
    adapter = trained if lora else 0
    if not checkpoints:
        return Disk(run=adapter, run_left=adapter, out=weights)
    states = checkpoints * (trained + _state_bytes(optimizer))
    kept = 0 if job.kept_step is None else best  # in the checkpoint from before the learning rate falls
    return Disk(run=states + best + kept + adapter, run_left=best + adapter, out=weights)


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can have on a device, those it has already included; None if that is not known."""
    more = more_memory(str(device))
    if more is None:
        return None
    has = torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    return more + int(has)


def free_disk(path: Path) -> int | None:
    """Free bytes on the disk of a file or directory, which need not exist yet; None if that cannot be found out."""
    place = path.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def same_disk(a: Path, b: Path) -> bool:
    """Whether two places, which need not exist yet, are on the same file system."""
    devices = []
    for path in (a.absolute(), b.absolute()):
        place = next((p for p in (path, *path.parents) if os.path.lexists(p)), path)
        try:
            devices.append(place.stat().st_dev)
        except OSError:
            return False
    return devices[0] == devices[1]
