"""Quantized checkpoints: 8 or 4 bits a weight, and one embedding row for all tokens that never occur.

NAME, NAME.scale        a matrix in int8 (out, in), and the factor of each row (out,);
                        or two weights of 4 bits in each uint8 (out, in / 2), the even one in the lower half, both
                        stored plus 8, and the factor of each group of a row (out, groups)
wte.weight, wte.index   rows of the embedding, and the number of its row for each token of the vocabulary
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from gpt2cli.checkpoints import rounding
from gpt2cli.checkpoints.metadata import provenance_of
from gpt2cli.checkpoints.quantize_request import BITS, check_request
from gpt2cli.checkpoints.rounding import Rounding
from gpt2cli.checkpoints.save import save_tensors
from gpt2cli.checkpoints.tensor_checks import check_model_tensors
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.model.quantization import dequantize_groups, group_size, is_cut, quantize_groups, quantize_rows
from gpt2cli.progress import Progress, ignore
from gpt2cli.untrusted import shown_name

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec

STORED_BITS = {"int8": 8, "int4": 4}
SCALE, INDEX, TABLE, POSITIONS = ".scale", "wte.index", "wte.weight", "wpe.weight"
FIRST_MATRIX = "h.0.attn.c_attn.weight"
MAX_ROWS = torch.iinfo(torch.uint16).max + 1
SMALLEST_GROUP = 8
"""The fewest weights that share a scale of 16 bits. With fewer, a weight would take 8 bits or more."""


@dataclass(frozen=True)
class Quantized:
    """The bytes of the weights in fp32, those of the file, and the rounding error: its root mean square, divided by
    that of the weights."""

    fp32_bytes: int
    bytes: int
    error: float


def quantize_model(
    spec: "ModelSpec", bits: int, out: Path, *, force: bool = False, progress: Progress = ignore
) -> Quantized:
    """Write a model to the file `out` with its matrices in `bits`, 8 or 4.

    A model that is stored in 8 bits can be written in 4. An existing file is replaced only with `force`, and stays
    until the new one is complete. Raises UsageError for invalid arguments and for a model that is in so few bits
    already, CheckpointError for weights that do not fit into so few bits, ResourceError if the disk is full, and what
    `ModelSpec.read` raises.
    """
    check_request(spec, bits, out, force)
    gpt = spec.read(progress).float()
    stored = STORED_BITS.get(gpt.origin.precision)
    if stored is not None and stored <= bits:
        instead = "; --bits 4 makes it smaller" if stored > min(BITS) else ": quantize the model that it was made from"
        raise UsageError(f"{spec.name} is in {stored} bits already{instead}")
    metadata = spec.metadata()
    metadata.prompt_template(spec.name)  # raises if it lacks a part
    tensors = share_equal_rows({name: tensor.detach() for name, tensor in gpt.state_dict().items()})
    small = quantize_tensors(tensors, bits)
    error = check_rounding(tensors, small).relative
    provenance = provenance_of(metadata, gpt.origin.other_tokenizer)
    save_tensors(small, gpt.config, out, template=metadata.template, provenance=provenance)
    return Quantized(sum(parameter.nbytes for parameter in gpt.parameters()), out.stat().st_size, error)


def quantize_tensors(tensors: dict[str, Tensor], bits: int = 8) -> dict[str, Tensor]:
    """Weights under our names with every matrix in `bits`, 8 or 4.

    The embedding, the head, and a matrix whose width no group size divides are always in 8. Positions stay in fp32:
    they are few, and one is added to every token.
    """
    small = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dim() != 2 or name == POSITIONS:
            continue
        if bits == 4 and name.startswith("h.") and group_size(tensor.shape[1]) >= SMALLEST_GROUP:
            numbers, scale = quantize_groups(tensor.float().numpy())
            small[name], small[name + SCALE] = _pack_halves(torch.from_numpy(numbers)), torch.from_numpy(scale)
        else:
            small[name], small[name + SCALE] = map(torch.from_numpy, quantize_rows(tensor.float().numpy()))
    return small


def precision(tensors: dict[str, Tensor], *names: str) -> str:
    """The precision of stored tensors (or those of these names): int4, int8, or fp32 for any type of more bits."""
    types = {tensors[name].dtype for name in names or tensors if name + SCALE in tensors}
    return "int4" if torch.uint8 in types else "int8" if torch.int8 in types else "fp32"


def _pack_halves(numbers: Tensor) -> Tensor:
    """Numbers (out, in) from -8 to 7, two in each uint8."""
    shifted = (numbers + 8).to(torch.uint8)
    return shifted[:, 0::2] | shifted[:, 1::2] << 4


def _unpack_halves(packed: Tensor) -> Tensor:
    halves = torch.stack([packed & 15, packed >> 4], dim=2).flatten(1)
    return halves.to(torch.int8) - 8


def share_rows(tensors: dict[str, Tensor], occurs: Tensor) -> dict[str, Tensor]:
    """The tensors with one embedding row, the mean, for all tokens for which `occurs`, (V,) bool, is false."""
    table = tensors[TABLE]
    rows = torch.cat([table[~occurs].mean(dim=0, keepdim=True), table[occurs]])
    index = torch.where(occurs, occurs.cumsum(0), 0).to(torch.uint16)
    return tensors | {TABLE: rows, INDEX: index}


def share_equal_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the most common embedding row stored once, if more than a twentieth of all tokens have it.

    A model with such a row was stored by `share_rows`, as the bundled one was. After tuning it still has one: tokens
    that never occur all get the same gradients.
    """
    table = tensors[TABLE]
    marks = table.double() @ torch.linspace(1, 2, table.shape[1], dtype=torch.float64)
    same = (table == table[marks.mode().indices]).all(dim=1)
    enough = int(same.sum()) > len(table) / 20 and len(table) <= torch.iinfo(torch.uint16).max
    return share_rows(tensors, ~same) if enough else tensors


def check_rounding(tensors: dict[str, Tensor], small: dict[str, Tensor]) -> Rounding:
    """The rounding errors in the result of `quantize_tensors`. Raises CheckpointError if they are too large."""
    total = Rounding()
    for name, tensor in tensors.items():
        if name + SCALE in small:
            scale = small[name + SCALE]
            back = to_floats({name: small[name], name + SCALE: scale}, name)[name]
            total += rounding.check_rounding(name, tensor, back, precision(small, name), is_cut(scale.numpy()))
    return total


def to_floats(tensors: dict[str, Tensor], where: object, *, only_shape: bool = False) -> dict[str, Tensor]:
    """The tensors as floats, with an embedding row for every token. With `only_shape`, they are on the meta device.

    Raises CheckpointError if they do not fit each other, or one has a type that is not used for weights.
    """
    check_model_tensors(tensors, where)
    tensors = _with_all_rows(tensors, where)
    if only_shape:
        tensors = {name: tensor.to("meta") for name, tensor in tensors.items()}
    whole = dict(tensors)
    for name, tensor in tensors.items():
        scale = tensors.get(name + SCALE)
        if tensor.dtype is torch.int8 or (tensor.dtype is torch.uint8 and scale is not None):
            bits, part = (8, "row") if tensor.dtype is torch.int8 else (4, "group")
            if not _is_scale(scale, tensor):
                raise CheckpointError(
                    f"{where}: {shown_name(name)} is in {bits} bits without a scale for each {part}: get the file again"
                )
            del whole[name + SCALE]
            if only_shape:  # arithmetic on the meta device would import torch's compiler: two seconds
                whole[name] = torch.empty(len(tensor), tensor.shape[1] * 8 // bits, device="meta")
            elif bits == 8:
                whole[name] = tensor.float().mul_(scale[:, None])
            else:
                whole[name] = torch.from_numpy(dequantize_groups(_unpack_halves(tensor).numpy(), scale.numpy()))
    return whole


def _with_all_rows(tensors: dict[str, Tensor], where: object) -> dict[str, Tensor]:
    """The tensors with a row of the embedding for every token, in the type that it is stored in.

    The result can be much larger than the file. So it is made only if the other weights have the same width, and the
    index has at most MAX_ROWS entries.
    """
    if INDEX not in tensors:
        return tensors
    index, table = tensors[INDEX], tensors.get(TABLE)
    if index.dtype is not torch.uint16 or index.dim() != 1 or len(index) > MAX_ROWS:
        raise CheckpointError(f"{where}: {INDEX} is no list of up to {MAX_ROWS} numbers in uint16: get the file again")
    if table is None or table.dim() != 2 or not _is_width(table.shape[1], tensors):
        raise CheckpointError(f"{where}: {TABLE} is not as wide as the other weights: get the file again")
    index = index.long()
    if int(index.max()) >= len(table):
        raise CheckpointError(f"{where}: {INDEX} names rows that are not there: get the file again")
    whole = {name: tensor for name, tensor in tensors.items() if name != INDEX}
    for name in (TABLE, TABLE + SCALE):
        if name in tensors and tensors[name].shape[:1] == (len(table),):
            whole[name] = tensors[name].index_select(0, index)
    return whole


def _is_width(width: int, tensors: dict[str, Tensor]) -> bool:
    """Whether the positions and the first matrix of the first block (perhaps in 4 bits) are of this width."""
    positions, matrix = tensors.get(POSITIONS), tensors.get(FIRST_MATRIX)
    if positions is None or matrix is None or positions.dim() != 2 or matrix.dim() != 2:
        return False
    columns = matrix.shape[1] * (2 if matrix.dtype is torch.uint8 else 1)
    return positions.shape[1] == columns == width and len(matrix) == 3 * width


def _is_scale(scale: Tensor | None, matrix: Tensor) -> TypeGuard[Tensor]:
    """Whether there is a factor for each row of a matrix in int8, or for each group of one with two weights a byte."""
    if scale is None or matrix.dim() != 2 or scale.dtype not in (torch.float16, torch.float32):
        return False
    if matrix.dtype is torch.int8:
        return scale.shape == matrix.shape[:1]
    return scale.dim() == 2 and len(scale) == len(matrix) and 2 * matrix.shape[1] % scale.shape[1] == 0
