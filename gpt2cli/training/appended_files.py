"""The two files that a run appends to, `metrics.jsonl` and `samples.md`: how they are written and cut back.

A resumed run keeps the parts up to the step of its checkpoint.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from gpt2cli import untrusted
from gpt2cli.training.events import Sampled

_NUMBERS = {"step": ("loss", "smoothed_loss", "tokens"), "eval": ("val_loss",)}
_HEADING = re.compile(rb"## Step (\d{1,18})\n")
# control characters (C0, C1 and DEL), except tab, and how to show them
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\t")}


def as_line(fields: Mapping[str, Any]) -> str:
    """A line of `metrics.jsonl`. NaN and infinity, which JSON does not have, become null."""
    return json.dumps({name: _finite(value) for name, value in fields.items()}, allow_nan=False) + "\n"


def lines_up_to(file: BinaryIO, step: int) -> Iterator[bytes]:
    """The lines of `metrics.jsonl` up to this step, without torn and damaged ones."""
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


def as_markdown(event: Sampled) -> str:
    """A section of `samples.md`. Each text is an indented block, so that it cannot contain a heading."""
    parts = [f"## Step {event.step}\n"]
    for each in event.answers:
        parts += ["Prompt:\n", indented(each.prompt), "Answer:\n", indented(each.answer)]
        if each.expected is not None:
            parts += ["Expected:\n", indented(each.expected)]
    return "\n".join(parts) + "\n"


def indented(text: str) -> str:
    lines = [line.translate(_VISIBLE) for line in text.splitlines()] or ["(nothing)"]
    return "".join(f"    {line}\n" for line in lines)


def sections_up_to(file: BinaryIO, step: int) -> Iterator[bytes]:
    """The lines of the sections of `samples.md` up to this step, without torn and damaged ones."""
    for line in untrusted.whole_lines(file):
        heading = _HEADING.fullmatch(line)
        if heading and int(heading[1]) > step:
            return
        yield line
