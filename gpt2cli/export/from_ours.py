"""Our weights under the names that other projects give them."""

import re

from torch import Tensor

from gpt2cli.checkpoints.dialects import DIALECTS, MATRICES

_BLOCK_NUMBER = re.compile(r"^h\.(\d+)\.")


def from_ours(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Our weights under the names and in the orientation of a dialect: views, no copies.

    The inverse of `dialects.to_ours`.
    """
    dialect = next(dialect for dialect in DIALECTS if dialect.name == name)
    theirs: dict[str, Tensor] = {}
    for our_name, tensor in tensors.items():
        module, _, leaf = our_name.rpartition(".")
        block = _BLOCK_NUMBER.search(module)
        targets = dialect.modules[_BLOCK_NUMBER.sub("h.*.", module)]
        if "ln_" in module:
            leaf = dialect.norm_leaves.get(leaf, leaf)
        if dialect.conv1d and our_name.endswith(MATRICES):
            tensor = tensor.t()
        wrapper = "" if module == "lm_head" else dialect.wrapper
        for target, part in zip(targets, tensor.chunk(len(targets)), strict=True):
            theirs[f"{wrapper}{target}.{leaf}".replace("*", block[1] if block else "")] = part
    return theirs
