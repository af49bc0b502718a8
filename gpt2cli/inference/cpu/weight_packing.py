"""PackedRow: the layers of a block laid out as the compiled loops read them.

Numba is imported where it is used, as it takes a while.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.model.gpt import Block
from gpt2cli.model.quantization import DTYPES, GROUP, is_cut, quantize_groups, quantize_rows, refuse_cut


def pack_block(block: Block, precision: str, arena: Arena) -> Any:
    from gpt2cli.inference.cpu.block import Weights

    attn, mlp = block.attn, block.mlp
    layers = (block.ln_1, attn.c_attn, attn.c_proj, block.ln_2, mlp.c_fc, mlp.c_proj)
    return Weights(
        *(
            pack_matrix(layer.weight, layer.bias, precision, arena)
            if isinstance(layer, nn.Linear)
            else pack_norm(layer)
            for layer in layers
        )
    )


def pack_norm(norm: nn.LayerNorm) -> Any:
    return torch.stack([norm.weight.float(), norm.bias.float()]).numpy()


def pack_matrix(weight: Tensor, bias: Tensor | None, precision: str, arena: Arena | None = None) -> Any:
    """A linear layer's weight (out, in) and bias as the kernels take them, padded with zeros to what they count in.

    The weights, and the scales of groups, are in the arena. Rows that are not made of whole groups cannot be held in
    4 bits, and are in 8. Raises CheckpointError for weights that are too large for `precision`.
    """
    from gpt2cli.inference.cpu.matmul import Matrix, padded_shape

    arena = arena or Arena()
    shape = out, width = padded_shape(*weight.shape)
    scale, step, groups = torch.ones(out), torch.ones(out), torch.zeros(1, 1, dtype=torch.float16)
    if precision == "int4" and weight.shape[1] % GROUP == 0:
        numbers, fine_scale = quantize_groups(weight.float())
        groups = _filled(arena.zeros((out, width // GROUP), torch.float16), fine_scale)
        refuse_cut(is_cut(fine_scale), weight, precision)
        step = _step(groups.float() * 8)
        halves = _filled(torch.zeros(shape, dtype=torch.uint8), numbers + 8).view(out, -1, 2, GROUP // 2)
        weights = arena.zeros((out, width // 2), torch.uint8)
        weights.view(out, -1, GROUP // 2).copy_(halves[:, :, 0] | halves[:, :, 1] << 4)
    elif precision in ("int8", "int4"):
        numbers, row_scale = quantize_rows(weight.float())
        scale[: len(row_scale)] = row_scale
        weights = _filled(arena.zeros(shape, torch.int8), numbers)
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
    """What each row's weights are divided by to become whole numbers."""
    from gpt2cli.inference.cpu.elementwise import LEAST
    from gpt2cli.inference.cpu.matmul_int16 import LARGEST

    largest = torch.maximum(weights.amax(1), -weights.amin(1)).float() / LARGEST
    return torch.where(largest < LEAST, 1, largest)  # what is not finite stays so


def _filled(zeros: Tensor, matrix: Tensor) -> Tensor:
    """A matrix of zeros, with a smaller one in its upper left corner."""
    zeros[: matrix.shape[0], : matrix.shape[1]] = matrix
    return zeros
