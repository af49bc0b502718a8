"""The report replaces an earlier report, and nothing else without --force."""

from functools import partial
from pathlib import Path

import pytest

from gpt2cli.cli.report_file import EVALUATION, check_out, write_report
from gpt2cli.errors import UsageError
from gpt2cli.evaluation.report import page
from gpt2cli.evaluation.results import Evaluation, ModelResult

FIGURES = Evaluation("data.json", "alpaca", "all", 1, 0, None, {}, [ModelResult("a.pt", None, {}, {})])


@pytest.mark.parametrize("name", ["report.html", "report.JSON"])
def test_a_report_is_replaced_without_asking(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    check_out(out, EVALUATION, [], force=False)
    write_report(out, partial(FIGURES.as_dict, with_records=True), partial(page, FIGURES), "")
    check_out(out, EVALUATION, [], force=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", "<!DOCTYPE html><title>gpt2 evaluate</title><p>My thesis</p>"),
        ("settings.json", '{"data": "records.json", "models": []}'),
        ("empty.json", ""),
    ],
)
def test_another_file_is_replaced_with_force_only(tmp_path: Path, name: str, content: str) -> None:
    out = tmp_path / name
    out.write_text(content)
    with pytest.raises(UsageError, match=r"is there already: use --force to replace it, or choose another --out"):
        check_out(out, EVALUATION, [], force=False)
    check_out(out, EVALUATION, [], force=True)
    with pytest.raises(UsageError, match="is an input of the evaluation"):
        check_out(out, EVALUATION, [str(out)], force=True)
