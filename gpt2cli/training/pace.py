"""Measures how fast this machine trains a model of some shape, in a fraction of a second and before the first step.

Nothing is computed from a processor's data sheet. A miniature of the model, with one block of the real width and a part
of the vocabulary, takes a step with the real layers, number format and threads. Its three parts are timed.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt2cli.config import GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.model.device import LOGIT_ROWS
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import add_lora
from gpt2cli.model.packed_row import PackedRow
from gpt2cli.training.bf16_linear import make_lean
from gpt2cli.training.job import round_frozen
from gpt2cli.training.loss import HEAD_ROWS, summed_cross_entropy
from gpt2cli.training.optim import Optimizer

FLOPS_OF_A_PROBE = {"cpu": 8e9, "cuda": 1e12, "mps": 1e11}
"""The work of one timed pass through a block: about 0.1 s on a laptop's CPU."""

REPEATS = 3
"""How often a part is timed. The least time counts: other programs can only lengthen it."""


@dataclass(frozen=True)
class Pace:
    """Seconds of the parts of a training step: forward, backward and update.

    token      of one token in one block
    target     of the logits of one target
    parameter  of the update of one trained parameter
    """

    token: float
    target: float
    parameter: float


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a step computes. `lengths` are those of the sequences in a typical row, `targets` the targets in it."""

    config: GPTConfig
    train: TrainConfig
    lora: LoRAConfig | None
    autocast: torch.dtype | None
    recompute: bool
    device: torch.device
    lengths: list[int]
    targets: int


def measure_pace(work: Workload) -> Pace:
    """Time a step of a miniature of the model. Torch's random state stays as it was; the results are of this moment."""
    vocabulary = min(work.config.vocab_size, HEAD_ROWS)
    with torch.random.fork_rng(devices=[work.device] if work.device.type == "cuda" else []):
        with torch.device("meta"):
            model = GPT(
                replace(work.config, n_layer=1, vocab_size=vocabulary, block_size=1, dropout=work.train.dropout)
            )
            if work.lora:
                add_lora(model, work.lora)
        _fill(model, work.device)
        if work.autocast:
            round_frozen(model, work.autocast)
            if work.device.type == "cpu":
                make_lean(model, work.autocast)
        model.train()
        lengths = _shortened(work)
        targets = min(work.targets, LOGIT_ROWS[work.device.type])
        row = PackedRow(lengths, [None] * len(lengths), work.device)
        token = _seconds(lambda: _block_pass(model, work, row), work.device) / sum(lengths)
        part = _seconds(lambda: _head_pass(model, work, targets), work.device)
        target = part / targets * work.config.vocab_size / vocabulary
        optimizer = Optimizer(model, work.train)
        update = _seconds(lambda: _update(optimizer), work.device)
        return Pace(token, target, update / sum(p.numel() for p in optimizer.trained.values()))


def _fill(model: GPT, device: torch.device) -> None:
    """Replace the parameters of a model on the meta device by constants on `device`.

    To draw random values, or to import what `to_empty` needs, would take longer than the measurement.
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            values = torch.full(parameter.shape, 0.01, device=device)
            setattr(module, name, nn.Parameter(values, parameter.requires_grad))


def _shortened(work: Workload) -> list[int]:
    """Lengths of the typical row's first sequences, as many tokens as a probe may have."""
    room = int(FLOPS_OF_A_PROBE[work.device.type] / (6 * 12 * work.config.n_embd**2))
    room, lengths = max(32, room), []
    for length in work.lengths:
        lengths.append(min(length, room))
        room -= lengths[-1]
        if room <= 0:
            break
    return lengths


def _block_pass(model: GPT, work: Workload, row: PackedRow) -> None:
    """Forward and backward through the block."""
    x = torch.randn(1, sum(row.lengths), work.config.n_embd, device=work.device, requires_grad=True)
    with _computing_in(work):
        block = model.h[0]
        y: Tensor = checkpoint(block, x, row, use_reentrant=False) if work.recompute else block(x, row)
    y.backward(torch.ones_like(y))  # type: ignore[no-untyped-call]


def _head_pass(model: GPT, work: Workload, targets: int) -> None:
    """Forward and backward through the head and the loss."""
    hidden = torch.randn(targets, work.config.n_embd, device=work.device, requires_grad=True)
    wanted = torch.zeros(targets, dtype=torch.int64, device=work.device)
    with _computing_in(work):
        loss = summed_cross_entropy(hidden, model.wte.weight, wanted)
    loss.backward()  # type: ignore[no-untyped-call]


def _update(optimizer: Optimizer) -> None:
    for parameter in optimizer.keys:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.0, float(optimizer.gradient_norm()))


def _computing_in(work: Workload) -> "torch.autocast | nullcontext[None]":
    return torch.autocast(work.device.type, dtype=work.autocast) if work.autocast else nullcontext()


def _seconds(compute: Callable[[], None], device: torch.device) -> float:
    """The least time of REPEATS calls, after one call that warms up caches and compiles kernels."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        compute()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _wait(device: torch.device) -> None:
    """Wait until the device has computed everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
