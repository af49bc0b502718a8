"""The file that `gpt2 evaluate --out` writes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import paths
from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.outputs import check_file
from gpt2cli.untrusted import is_directory

if TYPE_CHECKING:
    from gpt2cli.evaluation.results import Evaluation

ENDINGS = (".html", ".json")


def check_out(out: Path, inputs: list[str | None]) -> None:
    """Raise UsageError or ResourceError for a report that could not be written, or would overwrite what is read."""
    if out.suffix.lower() not in ENDINGS:
        raise UsageError(f"{out} is not the name of a report: give a name that ends in {' or '.join(ENDINGS)}")
    if is_directory(out):
        raise UsageError(f"{out} is a directory: name a file in it")
    if any(given and paths.expand(given).resolve() == out.resolve() for given in inputs):
        raise UsageError(f"{out} is an input of the evaluation: write the report elsewhere")
    check_file(out)


def write_report(evaluation: "Evaluation", out: Path) -> None:
    """Write the report in the format of the name's ending. Raises ResourceError if that fails."""
    from gpt2cli.atomic import write_text
    from gpt2cli.evaluation.report import page

    if out.suffix.lower() == ".json":
        told = evaluation.as_dict(with_records=True)
        content = json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    else:
        content = page(evaluation)
    try:
        write_text(out, content)
    except OSError as error:
        advice = "the results are kept, and the same command with another --out writes them at once"
        raise ResourceError(f"cannot write {out}: {error.strerror or error}: {advice}") from None
