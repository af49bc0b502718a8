"""Packs a model's weights into the arrays that the compiled loops read."""

from typing import Any

import torch
from torch import Tensor, nn

from gpt2cli.inference.cpu.block import Weights
from gpt2cli.inference.cpu.dot_kernels import BLOCK_OUTPUTS, WIDTH_MULTIPLE
from gpt2cli.inference.cpu.elementwise import SMALLEST
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu.matmul import Matrix, rounded_up
from gpt2cli.inference.cpu.matmul_int16 import LARGEST_WEIGHT
from gpt2cli.model.gpt import Block
from gpt2cli.model.quantization import GROUP, is_cut, quantize_groups, quantize_rows
from gpt2cli.model.torch_precisions import DTYPES, refuse_cut


def pack_block(block: Block, precision: str, arena: Arena) -> Weights:
    """The weights of a block. Raises CheckpointError as `pack_matrix`."""
    layers = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    c_attn, attn_proj, c_fc, mlp_proj = (pack_matrix(layer.weight, layer.bias, precision, arena) for layer in layers)
    return Weights(pack_norm(block.ln_1), c_attn, attn_proj, pack_norm(block.ln_2), c_fc, mlp_proj)


def pack_norm(norm: nn.LayerNorm) -> Any:
    """A layer norm's weight and bias, (2, C) fp32."""
    return torch.stack([norm.weight.float(), norm.bias.float()]).numpy()


def pack_matrix(weight: Tensor, bias: Tensor | None, precision: str, arena: Arena | None = None) -> Matrix:
    """A linear layer's weight (out, in) and bias as a `Matrix`, padded with zeros.

    The weights and the scales of groups are allocated in the arena. Rows whose length is not a multiple of GROUP are
    stored in 8 bits if `precision` is int4. Raises CheckpointError for weights that are too large for `precision`.
    """
    arena = arena or Arena()
    shape = out, width = rounded_up(len(weight), BLOCK_OUTPUTS), rounded_up(weight.shape[1], WIDTH_MULTIPLE)
    scale, step, groups = torch.ones(out), torch.ones(out), torch.zeros(1, 1, dtype=torch.float16)
    if precision == "int4" and weight.shape[1] % GROUP == 0:
        numbers, fine_scale = quantize_groups(weight.detach().float().numpy())
        groups = _filled(arena.zeros((out, width // GROUP), torch.float16), torch.from_numpy(fine_scale))
        refuse_cut(is_cut(fine_scale), weight, precision)
        step = _step(groups.float() * 8)
        halves = _filled(torch.zeros(shape, dtype=torch.uint8), torch.from_numpy(numbers + 8)).view(
            out, -1, 2, GROUP // 2
        )
        weights = arena.zeros((out, width // 2), torch.uint8)
        weights.view(out, -1, GROUP // 2).copy_(halves[:, :, 0] | halves[:, :, 1] << 4)
    elif precision in ("int8", "int4"):
        numbers, row_scale = quantize_rows(weight.detach().float().numpy())
        scale[: len(row_scale)] = torch.from_numpy(row_scale)
        weights = _filled(arena.zeros(shape, torch.int8), torch.from_numpy(numbers))
    else:
        bits = {"fp32": torch.float32, "fp16": torch.uint16, "bf16": torch.int16}[precision]
        weights = _filled(arena.zeros(shape, DTYPES[precision]), weight)
        if precision != "fp32":
            step = _step(weights)
            refuse_cut(not bool(step.isfinite().all()), weight, precision)
        weights = weights.view(bits)
    offset = torch.zeros(out)
    if bias is not None:
        offset[: len(bias)] = bias
    parts = (weights, groups.view(torch.uint16), scale, offset, step)
    return Matrix(*(part.numpy() for part in parts))


def _step(weights: Tensor) -> Tensor:
    """The scale with which `matmul_int16` rounds each row of weights."""
    largest = torch.maximum(weights.amax(1), -weights.amin(1)).float() / LARGEST_WEIGHT
    return torch.where(largest < SMALLEST, 1, largest)  # infinity and NaN stay


def _filled(zeros: Tensor, matrix: Tensor) -> Tensor:
    """Copy a matrix into the upper left corner of a larger one of zeros. Returns the larger one."""
    zeros[: matrix.shape[0], : matrix.shape[1]] = matrix
    return zeros
