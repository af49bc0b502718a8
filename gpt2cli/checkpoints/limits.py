"""Limits on a checkpoint file, so that reading it takes no more memory and time than a small multiple of its size.

They are far above the largest GPT-2, which has 48 blocks, 580 tensors, and 60 kB of header.
"""

from typing import Any

from gpt2cli.errors import CheckpointError

MAX_HEADER = 4 * 2**20
"""Bytes of a header, or of a JSON file beside the weights, that are read. As Python objects they take 25 times that."""
MAX_TENSORS = 20_000
"""Tensors in a file: of the largest GPT-2 with the state of its optimizer, there are 2,400."""
MAX_BLOCKS = 500
"""Transformer blocks. Each costs a millisecond, however small it is."""
MAX_SHARDS = 1_000
"""Files that the weights of one model may be in."""
MAX_DIMENSIONS = 8
"""Dimensions of a tensor. The causal masks have four."""
MAX_NAME = 500
"""Characters of a tensor's name."""
MAX_REPEATED = 3
"""The size of all tensors, divided by that of their file, may be this at most: tensors can share memory."""
MAX_FACTS = 10_000
"""Values in a file besides its tensors: in its config, its template and its provenance."""


def plain_facts(value: Any, where: object) -> Any:
    """A copy of a file's facts, of numbers, texts, lists and dicts. Any other value becomes the name of its type.

    Halves of surrogate pairs, which no text file can hold, become question marks. Raises CheckpointError for more than
    MAX_FACTS values. A list that is in two places counts twice: such nesting can be exponentially large as a text.
    """
    left = MAX_FACTS

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 50:
            raise CheckpointError(
                f"{where}: its config, template or provenance is nested or large beyond reason: save it again"
            )
        if isinstance(value, str):
            return value.encode(errors="replace").decode()
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            members = ((name, member) for name, member in value.items() if isinstance(name, str))
            return {copied(name, depth): copied(member, depth + 1) for name, member in members}
        if isinstance(value, list | tuple):
            return [copied(member, depth + 1) for member in value]
        return f"a {type(value).__name__}"

    return copied(value, 0)
