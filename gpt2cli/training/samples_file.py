"""A run's `samples.md`: a section of answers for each step at which the prompts were answered."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from gpt2cli import untrusted
from gpt2cli.training.events import Sampled

_HEADING = re.compile(rb"## Step (\d{1,18})\n")
# C0 and C1 controls and DEL, as what they look like in a Python string
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\t")}


def as_markdown(event: Sampled) -> str:
    """The answers as a section of markdown, each text an indented block: none can look like a heading or end it."""
    parts = [f"## Step {event.step}\n"]
    for prompt, answer in event.answers:
        parts += ["Prompt:\n", indented(prompt), "Answer:\n", indented(answer)]
    return "\n".join(parts) + "\n"


def indented(text: str) -> str:
    lines = [line.translate(_VISIBLE) for line in text.splitlines()] or ["(nothing)"]
    return "".join(f"    {line}\n" for line in lines)


def sections_up_to(file: BinaryIO, step: int) -> Iterator[bytes]:
    """The lines of the sections of `samples.md` up to this step. Torn and damaged lines are left out."""
    for line in untrusted.whole_lines(file):
        heading = _HEADING.fullmatch(line)
        if heading and int(heading[1]) > step:
            return
        yield line
