"""The file that `gpt2 evaluate --out` writes."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import outputs, paths, untrusted
from gpt2cli.errors import ResourceError

if TYPE_CHECKING:
    from gpt2cli.evaluation.results import Evaluation

ENDINGS = (".html", ".json")
_PAGE, _DATA = rb'(?s).*<p class="kicker">gpt2 evaluate</p>', rb'\{\s*"data": ".*",\s*"kind": ".*",\s*"split": "'
"""What the files begin with that `write_report` makes."""
_BEGINNING = 2**16
"""Bytes of a file in which one of them is looked for."""


def check_out(out: Path, inputs: list[str | None], force: bool) -> None:
    """Raise UsageError or ResourceError if no report can be written to `out`, or if `out` is one of the `inputs`.

    An earlier report may be replaced, any other file only with `force`.
    """
    outputs.check_suffix(out, ENDINGS, "a report", any_case=True)
    if any(given and paths.expand(given).resolve() == out.resolve() for given in inputs):
        raise outputs.refuse_input(out, "an input of the evaluation")
    outputs.check_file(out)
    outputs.check_free(out, force or _is_report(out))


def _is_report(file: Path) -> bool:
    """Whether `write_report` made this file, as far as its beginning shows it."""
    if not untrusted.is_file(file):
        return False
    try:
        with file.open("rb") as content:
            beginning = content.read(_BEGINNING)
    except OSError:
        return False
    return bool(re.match(_PAGE, beginning) or re.match(_DATA, beginning))


def write_report(evaluation: "Evaluation", out: Path) -> None:
    """Write the report in the format of the name's ending. Raises ResourceError if that fails."""
    from gpt2cli.atomic import write_text
    from gpt2cli.evaluation.report import page

    if out.suffix.lower() == ".json":
        data = evaluation.as_dict(with_records=True)
        content = json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    else:
        content = page(evaluation)
    try:
        write_text(out, content)
    except OSError as error:
        advice = "the results are kept, and the same command with another --out writes them at once"
        raise ResourceError(f"cannot write {out}: {error.strerror or error}: {advice}") from None
