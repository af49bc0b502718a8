"""The file that `gpt2 evaluate --out` writes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import outputs, paths
from gpt2cli.errors import ResourceError

if TYPE_CHECKING:
    from gpt2cli.evaluation.results import Evaluation

ENDINGS = (".html", ".json")


def check_out(out: Path, inputs: list[str | None]) -> None:
    """Raise UsageError or ResourceError if no report can be written to `out`, or if `out` is one of the `inputs`."""
    outputs.check_suffix(out, ENDINGS, "a report", any_case=True)
    if any(given and paths.expand(given).resolve() == out.resolve() for given in inputs):
        raise outputs.refuse_input(out, "an input of the evaluation")
    outputs.check_file(out)


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
