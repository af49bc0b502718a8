"""What all commands do with their arguments: empty values, `~`, suggestions, and an EOFError in the work."""

from pathlib import Path

import pytest
import typer

from gpt2cli.cli.app import app
from gpt2cli.cli.command_line import MEANT_COMMANDS, MEANT_OPTIONS, with_expanded_paths
from gpt2cli.cli.commands import generate
from gpt2cli.cli.error_messages import describe
from gpt2cli.cli.typer_internals import invoke
from gpt2cli.errors import UsageError
from tests.cli.test_help_pages import first_sentence
from tests.conftest import Run


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands


def text_parameters() -> list[tuple[str, str]]:
    """Every option of every command that takes a value, and every argument but a prompt."""
    found = []
    for name, command in commands().items():
        for param in command.params:
            is_flag = getattr(param, "is_flag", False) or getattr(param, "count", False)
            if not is_flag and (param.param_type_name == "option" or param.name != "prompt"):
                found.append((name, max(param.opts, key=len) if param.param_type_name == "option" else ""))
    return found


def parse(*args: str) -> None:
    invoke(app, args, {})


def test_there_are_many() -> None:
    assert len(text_parameters()) > 80 and ("finetune", "") in text_parameters()


@pytest.mark.parametrize(("command", "option"), text_parameters())
def test_an_empty_value_is_refused(command: str, option: str) -> None:
    args = [f"{option}="] if option else [""]
    with pytest.raises(UsageError, match="is empty: give it a value") as caught:
        parse(command, *args)
    assert option in str(caught.value) and f"{command} --help" in str(caught.value)


@pytest.mark.parametrize(
    "args",
    [
        ("finetune", "--data", " "),
        ("generate", "x", "-m", "\t"),
        ("evaluate", "--ckpt", "a", "--ckpt", ""),
        ("generate", "--prompt-file", " "),
        ("export", "--format", "hf", "--out", " "),
    ],
)
def test_a_path_or_a_name_of_blanks_is_empty(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="is empty"):
        parse(*args)


@pytest.mark.parametrize("args", [("generate", ""), ("generate", "x", "--stop", " "), ("chat", "--prompt", " ")])
def test_texts_of_blanks_and_an_empty_prompt_are_none_of_these(args: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="abacus"):  # which is looked at later
        parse(*args, "--device", "abacus", "--model", "tiny")


def test_an_empty_value_is_one_line_and_2(run: Run) -> None:
    done = run("finetune", "--data", "")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: --data is empty")


def test_a_home_directory_behind_an_equals_sign(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompt.txt").write_text("from home")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run("generate", "--prompt-file=~/prompt.txt", "--model", "tiny", "-n", "1")
    assert done.stdout.startswith("from home"), done.stderr
    done = run("generate", "--prompt-file=~nobody.there/x")
    assert done.returncode == 2 and "no such home directory" in done.stderr


def test_every_path_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert with_expanded_paths(lambda out, name: (out, name))(out=Path("~/x"), name="~/x") == (tmp_path / "x", "~/x")


def test_an_end_of_file_in_a_command_is_an_error_and_not_a_farewell(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*arguments: object) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr(generate, "open_model", cut)
    done = run("generate", "x", "--model", "tiny")
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("error: the input ended too early (Ran out of input)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (("train",), "`gpt2 finetune`"),
        (("commands",), "`gpt2 --help`"),
        (("help", "genrate"), "`gpt2 generate`"),
        (("version",), "`gpt2 --version`"),
        (("list",), "`gpt2 download-weights --list`"),
        (("genrate",), "`gpt2 generate`"),
        (("run",), "`gpt2 generate`"),
        (("generate", "x", "--length", "3"), "--max-new-tokens, -n"),
        (("generate", "x", "--max-tokens", "3"), "--max-new-tokens, -n"),
        (("finetune", "--learning-rate", "1"), "--lr"),
        (("generate", "x", "--tmp", "1"), "--temp"),
        (("bench", "--tokens", "3"), "--new-tokens, -n"),
    ],
)
def test_what_was_probably_meant_is_named(args: tuple[str, ...], meant: str) -> None:
    with pytest.raises(Exception, match=r".*") as caught:
        parse(*args)
    message, code = describe(caught.value)
    assert meant in message and code == 2


MEANT = [
    (name, wrong, next(ours for ours in right if any(ours in param.opts for param in command.params)))
    for name, command in commands().items()
    for wrong, right in MEANT_OPTIONS.items()
    if not any(wrong in param.opts for param in command.params)
    and any(ours in param.opts for ours in right for param in command.params)
]
"""Every command with the options of other programs that it knows, and what they mean here."""


@pytest.mark.parametrize(("command", "wrong", "right"), MEANT)
def test_every_option_of_other_programs_is_known(command: str, wrong: str, right: str) -> None:
    with pytest.raises(Exception, match=r".*") as caught:
        parse(command, wrong, "1")
    message, code = describe(caught.value)
    assert f"there is no option {wrong}: did you mean {right}" in message and code == 2


def test_every_meaning_is_an_option_of_some_command() -> None:
    assert {wrong for _, wrong, _ in MEANT} == set(MEANT_OPTIONS)
    lines = [line.split()[1:] for line in MEANT_COMMANDS.values()]
    assert all(line[0] in commands() or line[0] in ("--help", "--version") for line in lines)


def test_an_option_like_no_other_gets_no_guess() -> None:
    with pytest.raises(Exception, match=r".*") as caught:
        parse("generate", "x", "--zzz")
    said = "there is no option --zzz (see `gpt2 generate --help`, or put `--` before a prompt that begins with -)"
    assert describe(caught.value) == (said, 2)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("generate", "Once", "upon", "a", "time"), "put the prompt in quotes"),
        (("chat", "Who are you?"), "add --prompt before the instruction"),
    ],
)
def test_a_prompt_without_quotes_or_option_gets_advice(arguments: tuple[str, ...], advice: str) -> None:
    with pytest.raises(Exception, match=r".*") as caught:
        parse(*arguments)
    message, code = describe(caught.value)
    assert arguments[-1] in message and f"({advice}, or see `gpt2 {arguments[0]} --help`)" in message
    assert code == 2


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        *(("gen", "gpt2 generate"), ("exprot", "gpt2 export"), ("train", "gpt2 finetune"), ("trian", "gpt2 finetune")),
        *(("fine_tune", "gpt2 finetune"), ("modles", "gpt2 download-weights --list")),
    ],
)
def test_a_wrong_command_leads_to_the_line_to_type(wrong: str, line: str) -> None:
    with pytest.raises(UsageError, match=f"^there is no command '{wrong}': did you mean `{line}`\\?$"):
        parse(wrong)


def test_an_error_of_the_system_names_its_file() -> None:
    assert describe(OSError(28, "No space left on device", "a.pt")) == ("No space left on device: a.pt", 6)
    assert describe(OSError(18, "Invalid cross-device link", "a", None, "b")) == ("Invalid cross-device link: a: b", 6)


def test_the_shell_completes_commands_with_their_summaries() -> None:
    group = typer.main.get_command(app)
    with group.make_context("gpt2", [], resilient_parsing=True) as context:
        found = {item.value: item.help for item in group.shell_complete(context, "e")}
        options = [item.value for item in group.shell_complete(context, "--v")]
    assert found == {name: first_sentence(commands()[name].help) for name in ("evaluate", "explain", "export")}
    assert options == ["--version"]
