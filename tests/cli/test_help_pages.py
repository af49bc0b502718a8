"""Every help page can be read at every width, and names every option with its default and every example's purpose."""

import io
import os
import re
from pathlib import Path

import pytest
import typer

from gpt2cli.cli.app import START, app
from gpt2cli.cli.environment import Environment
from gpt2cli.cli.main import main
from tests.runner import Completed, Pipe, run_here

GROUP = typer.main.get_command(app)
COMMANDS = GROUP.commands  # type: ignore[attr-defined]
WIDTHS = (40, 60, 80, 100)


def page(*command: str, width: int) -> list[str]:
    done: Completed = run_here(*command, "--help", env={"COLUMNS": str(width)})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_too_long_and_no_column_is_a_sliver(command: str, width: int) -> None:
    lines = page(*command.split(), width=width)
    names = r"\s+(-|[a-z|]+$)"  # options and lists of choices may be longer, as a break would spoil them
    assert [line for line in lines if len(line) > width and not re.match(names, line)] == []
    described = [line for line in lines if line.startswith("    ") and not line.strip().startswith(("-", "[default"))]
    starts = [len(line) - len(line.lstrip()) for line in described]
    assert all(width - start >= 34 for start in starts), "less than 34 characters for descriptions"
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_there_with_one_kind_of_value(command: str) -> None:
    text = "\n".join(page(command, width=80))
    for param in COMMANDS[command].params:
        assert all(re.search(rf"(?m)^  .*{re.escape(name)}\b", text) for name in param.opts if name.startswith("-"))
    values = set(re.findall(r"(?m)^  (?:-\w, )?--[\w-]+ (\S+)", text)) - {""}
    plain = {"N", "X", "FRACTION", "TEXT", "FILE", "DIR", "NAME", "PATH", "MODEL", "OWNER/NAME", "RUN", "URL"}
    plain |= {"FIELD=COLUMN,...", "PART,...", "NAME,..."}
    assert all(value in plain or "|" in value for value in values if not value.startswith("--")), values
    assert "<" not in re.sub(r"(?s)\nExamples.*", "", text)
    assert "default: (" not in text and "bool" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_says_what_it_does(command: str) -> None:
    examples = [line.split("  # ") for line in COMMANDS[command].epilog.strip().splitlines()]
    assert len(examples) >= 2 and all(len(parts) == 2 and all(parts) for parts in examples)
    narrow = "\n".join(page(command, width=40))
    for example, comment in examples:
        assert example in re.sub(r" \\\n +", " ", narrow)
        assert comment in re.sub(r"\n  # ", " ", narrow)


def first_sentence(text: str) -> str:
    """The first sentence of a docstring."""
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".") + "."


def test_the_top_page_names_every_command_and_a_start_without_a_network() -> None:
    lines = page(width=80)
    for name, command in COMMANDS.items():
        assert any(line.startswith(f"  {name} ") and first_sentence(command.help) in line for line in lines)
    tries = [line.split("  # ")[0] for line in START.strip().splitlines()]
    assert 2 <= len(tries) <= 4 and all("--model tiny" in command for command in tries)
    headings = [line for line in lines if line and not line.startswith((" ", "`"))]
    assert headings[2:] == ["Start here", "Write", "Train", "Measure", "Look inside", "Files", "Options"]
    assert run_here().stdout == run_here("help").stdout == run_here("--help").stdout


def test_summaries_are_one_sentence_that_begins_with_a_verb() -> None:
    for command in COMMANDS.values():
        summary = first_sentence(command.help)
        assert len(summary) <= 60 and summary.split()[0] in {
            *("Continue", "Chat", "Serve", "Train", "Tokenize", "Compare", "Measure", "Write", "Download", "List"),
            "Show",
        }


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_name_show_the_page_of_that_command(command: str) -> None:
    assert run_here("help", command).stdout == run_here(command, "--help").stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's disk that is always full")
@pytest.mark.parametrize("line", ["--help", "generate --help", "help", "--version"])
def test_a_page_that_cannot_be_written_names_the_standard_output(line: str) -> None:
    stderr = Pipe()
    with Path("/dev/full").open("wb", buffering=0) as full:
        results = io.TextIOWrapper(full, write_through=True)
        assert main(line.split(), Environment(Pipe(), results, stderr, os.environ)) == 6
    assert stderr.written() == "error: No space left on device: the standard output\n"
