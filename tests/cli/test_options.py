"""The commands' options have the defaults of the config classes, and the choices of the code that reads them."""

from typing import Any, get_args

import pytest
import typer

from gpt2cli.cli import options
from gpt2cli.cli.app import app
from gpt2cli.config import ANSWERS, CHAT, BenchConfig, EvaluationConfig, SamplingConfig, ServeConfig
from gpt2cli.inference.decoder import PRECISIONS
from tests.conftest import Run

FIELDS = {"temp": "temperature"}
"""The fields of options that have another name."""
UNSET = {("generate", "stop"), ("chat", "stop"), ("evaluate", "answers"), ("serve", "cors_origins")}
"""Options that are None if they are not given."""


def defaults(command: str) -> dict[str, Any]:
    params = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {FIELDS.get(param.name, param.name): param.default for param in params}


@pytest.mark.parametrize(
    ("command", "config", "count"),
    [
        *(("generate", SamplingConfig(), 8), ("chat", CHAT, 7), ("bench", BenchConfig(), 3)),
        *(("evaluate", EvaluationConfig(), 4), ("evaluate", ANSWERS, 3), ("serve", ServeConfig(), 4)),
    ],
)
def test_an_options_default_is_the_configs(command, config, count):
    known = {name: value for name, value in defaults(command).items() if hasattr(config, name)}
    known = {name: value for name, value in known.items() if (command, name) not in UNSET}
    assert known == {name: getattr(config, name) for name in known}
    assert len(known) == count


def test_every_precision_is_a_choice():
    assert get_args(options.Precision) == ("auto", *sorted(PRECISIONS, key=get_args(options.Precision).index))


def test_common_options_have_one_default_in_all_commands():
    common = {"model", "device", "threads", "offline", "quiet", "debug", "json", "compile"}
    found: dict[str, set[Any]] = {}
    for command in ("generate", "chat", "serve", "evaluate", "bench", "finetune", "quantize", "export"):
        for name, default in defaults(command).items():
            if name in common:
                found.setdefault(name, set()).add(default)
    assert found == {
        name: {"auto"} if name == "device" else {None} if name in ("model", "threads") else {False} for name in common
    }


def test_only_a_fields_name_is_replaced_by_its_option(run: Run) -> None:
    done = run("finetune", "--data", "lessons", "--template", "alpca")
    assert (done.returncode, done.stderr[:33]) == (2, "error: there is no template 'alpc")
    done = run("prepare-alpaca", "--test-fraction", "0.95")
    assert done.stderr.startswith("error: --val-fraction + --test-fraction must be below 1, not more (see `gpt2 prepar")


def test_help_pages_show_no_types_of_flags_and_no_parentheses_around_defaults(run: Run) -> None:
    for command in ([], ["generate"], ["finetune"]):
        page = run(*command, "--help").stdout
        assert "--help" in page and "bool" not in page and "default: (" not in page
    assert "[default: random]" in run("generate", "--help").stdout
