"""The lines of a run's `metrics.jsonl`: how they are written, and which of them a resumed run keeps."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from gpt2cli import untrusted

_NUMBERS = {"step": ("loss", "smoothed_loss", "tokens"), "eval": ("val_loss",)}


def as_line(fields: Mapping[str, Any]) -> str:
    """A line of the file. JSON knows no NaN and no infinity: None stands for them."""
    return json.dumps({name: _finite(value) for name, value in fields.items()}, allow_nan=False) + "\n"


def lines_up_to(file: BinaryIO, step: int) -> Iterator[bytes]:
    """The whole lines of a file up to this step. Torn and damaged ones are left out."""
    return (line for line in untrusted.whole_lines(file) if _is_up_to(line, step))


def _is_up_to(line: bytes, step: int) -> bool:
    try:
        fields = untrusted.parse_json(line)
    except ValueError:
        return False
    if not isinstance(fields, dict) or type(fields.get("step")) is not int or not isinstance(fields.get("kind"), str):
        return False
    needed = _NUMBERS.get(fields["kind"], ())
    return 0 <= fields["step"] <= step and all(_is_number(fields.get(name)) for name in needed)


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**63


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
