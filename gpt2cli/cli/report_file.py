"""The file that `gpt2 evaluate --out` or `gpt2 explain --out` writes: a page, or data."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli import outputs, paths, untrusted
from gpt2cli.errors import ResourceError

ENDINGS = (".html", ".json")
_BEGINNING = 2**16
"""Bytes of a file in which the beginning of a page or of data is looked for."""


@dataclass(frozen=True)
class Report:
    """The kind of file that a command writes.

    name    what it is, in messages
    of      what its inputs are for, in messages
    page    a regular expression for the beginning of its pages
    data    a regular expression for the beginning of its data
    """

    name: str
    of: str
    page: bytes
    data: bytes


EVALUATION = Report(
    name="a report",
    of="the evaluation",
    page=rb'(?s).*<p class="kicker">gpt2 evaluate</p>',
    data=rb'\{\s*"data": ".*",\s*"kind": ".*",\s*"split": "',
)
EXPLANATION = Report(
    name="an explanation",
    of="the explanation",
    page=rb'(?s).*<p class="kicker">gpt2 explain ',
    data=rb'\{\s*"model": ".*",\s*"prompt": ".*",\s*"ids": \[',
)


def check_out(out: Path, kind: Report, inputs: list[str | None], force: bool) -> None:
    """Raise UsageError or ResourceError if no file can be written to `out`, or if `out` is one of the `inputs`.

    An earlier file of this kind may be replaced, any other file only with `force`.
    """
    outputs.check_suffix(out, ENDINGS, kind.name, any_case=True)
    if any(given and paths.expand(given).resolve() == out.resolve() for given in inputs):
        raise outputs.refuse_input(out, f"an input of {kind.of}")
    outputs.check_file(out)
    outputs.check_free(out, force or _is_report(out, kind))


def _is_report(file: Path, kind: Report) -> bool:
    """Whether `write_report` made this file, as far as its beginning shows it."""
    if not untrusted.is_file(file):
        return False
    try:
        with file.open("rb") as content:
            beginning = content.read(_BEGINNING)
    except OSError:
        return False
    return bool(re.match(kind.page, beginning) or re.match(kind.data, beginning))


def write_report(out: Path, data: Callable[[], dict[str, Any]], page: Callable[[], str], advice: str) -> None:
    """Write the data or the page, by the ending of the name. Raises ResourceError, with the advice, if that fails."""
    from gpt2cli.atomic import write_text

    if out.suffix.lower() == ".json":
        content = json.dumps(data(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    else:
        content = page()
    try:
        write_text(out, content)
    except OSError as error:
        raise ResourceError(f"cannot write {out}: {error.strerror or error}: {advice}") from None
