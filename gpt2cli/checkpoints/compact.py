"""How a checkpoint is stored small: 8 bits a weight, and one row of the embedding for all tokens that never occur.

NAME, NAME.scale        a matrix in int8, and what each of its rows is to be multiplied by
wte.weight, wte.index   rows of the embedding, and for each token of the vocabulary, which of them is its own
"""

import torch
from torch import Tensor

from gpt2cli.errors import CheckpointError

SCALE, INDEX, TABLE = ".scale", "wte.index", "wte.weight"
LARGEST = 127


def quantize(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with every matrix in int8: each row's largest weight becomes 127 times its scale."""
    small = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dim() == 2:
            scale = tensor.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
            small[name] = (tensor / scale[:, None]).round().to(torch.int8)
            small[name + SCALE] = scale
    return small


def share_rows(tensors: dict[str, Tensor], occurs: Tensor) -> dict[str, Tensor]:
    """The same with one embedding row, their mean, for all tokens but those that `occurs`, (V,) bool, names."""
    table = tensors[TABLE]
    rows = torch.cat([table[~occurs].mean(dim=0, keepdim=True), table[occurs]])
    index = torch.where(occurs, occurs.cumsum(0), 0).to(torch.uint16)
    return tensors | {TABLE: rows, INDEX: index}


def expand(tensors: dict[str, Tensor], where: object) -> dict[str, Tensor]:
    """Stored tensors as they were: floats, and a row for every token. Raises CheckpointError if they do not fit."""
    whole = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype is torch.int8:
            scale = whole.pop(name + SCALE, None)
            if tensor.dim() != 2 or scale is None or scale.shape != tensor.shape[:1]:
                raise CheckpointError(f"{where}: {name} is in 8 bits without a scale a row: get the file again")
            whole[name] = tensor * scale[:, None]
    if INDEX in tensors:
        index = whole.pop(INDEX).long()
        if TABLE not in whole or index.dim() != 1 or not len(index) or int(index.max()) >= len(whole[TABLE]):
            raise CheckpointError(f"{where}: {INDEX} names rows that are not there: get the file again")
        whole[TABLE] = whole[TABLE][index]
    return whole
