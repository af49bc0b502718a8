"""The README is short, its examples run, and the options, files and names in it exist. So do those in CONTRIBUTING."""

import json
import pkgutil
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.cli.app import app
from gpt2cli.config import GPTConfig
from gpt2cli.data.records import read_records
from tests import models
from tests.runner import PATIENCE
from tests.served_process import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
LONGEST = 300
"""Lines of the README: as many as a person reads in a quarter of an hour."""
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SHAPE = GPTConfig(n_layer=1, n_head=1, n_embd=64, block_size=128)

SHORTER = {
    "generate": ["-n", "3"],
    "chat": ["-n", "3"],
    "finetune": ["--epochs", "1", "--sample-every", "0", "--save-every", "0", "--force"],
    "evaluate": ["--answers", "1", "-n", "3"],
    "explain": ["--steps", "2", "--force"],
}
"""Options that are added to an example's, so that it takes seconds. The last value of an option counts."""
NEEDS_NETWORK = ("gpt2-medium", "distilgpt2", "--subset", "--model gpt2 --ckpt finetuned.pt")
"""Parts of the examples that need Alpaca, or a model that the tests' Hub does not serve."""


def words(line: str) -> list[str]:
    """The words of a shell's line, among them `|`, `>` and `&&`, without a comment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>&")
    lexer.whitespace_split = True
    return list(lexer)


def commands(line: str) -> Iterator[list[str]]:
    """The arguments of each `gpt2` in a shell's line."""
    rest = words(line)
    for number, word in enumerate(rest, start=1):
        if word.rpartition("/")[2] == "gpt2" and (number == 1 or rest[number - 2] in ("|", "&&")):
            yield list(takewhile(lambda word: word not in ("|", ">", "&&"), rest[number:]))


def section(title: str) -> list[str]:
    """The lines of the shell examples in a section of the README."""
    [text] = [part for part in README.split("\n## ") if part.startswith(title)]
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line]


EXAMPLES = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL).replace("\n", " "))
HELP_EXAMPLES = [line for command in COMMANDS.values() for line in command.epilog.splitlines()]


def test_it_is_read_in_a_quarter_of_an_hour():
    assert len(README.splitlines()) <= LONGEST


@pytest.mark.parametrize(
    ("lines", "at_least"),
    [(EXAMPLES, 30), ([code for code in INLINE if " COMMAND" not in code], 4), (HELP_EXAMPLES, 30)],
    ids=["in the README", "in its sentences", "in the help pages"],
)
def test_every_example_is_a_command_with_options_that_it_has(lines, at_least):
    found = [arguments for line in lines for arguments in commands(line) if arguments]
    assert len(found) >= at_least
    for name, *arguments in found:
        COMMANDS[name].make_context(name, arguments)  # raises for an option or a value that the command does not take


def test_every_option_in_the_sentences_is_there():
    known = {option for command in COMMANDS.values() for param in command.params for option in param.opts}
    named = {option for code in INLINE for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", code)}
    assert len(named) >= 10
    assert named - known <= {"--help", "-m", "--nproc-per-node"}  # the second is Python's here, the last torchrun's


def test_every_name_and_every_file_is_there():
    names = re.findall(r"`gpt2cli((?:\.\w+)+)", README)
    assert names
    for name in names:
        pkgutil.resolve_name(f"gpt2cli{name}")
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    paths = re.findall(r"(?<=[` ])(?:gpt2cli|tests)/[\w/.]+", README + CONTRIBUTING)
    assert len(links) >= 4
    assert len(paths) >= 25
    assert [path for path in (*links, *paths) if not (ROOT / path).exists()] == []
    [house] = re.findall(r"```\ngpt2cli/\n(.*?)```", README, re.DOTALL)
    names = [name for line in house.splitlines() for name in line[:20].split() if "*" not in name]
    assert len(names) >= 10
    assert [name for name in names if not (ROOT / "gpt2cli" / name).exists()] == []


@pytest.fixture
def shell(run, tmp_path, monkeypatch):
    """Runs a line of the README with the options of SHORTER, in a temporary directory. Returns its stdout."""
    monkeypatch.chdir(tmp_path)

    def carry_out(line: str) -> str:
        rest, output = words(line), ""
        if ">" in rest:
            *rest, _, target = rest
        for name, *arguments in _split(rest, "|"):
            if name == "echo":
                output = " ".join(arguments) + "\n"
            elif name == "cat":
                output = "".join(Path(file).read_text(encoding="utf-8") for file in arguments)
            else:
                typed = output or "Who are you?\n"  # which `chat` answers here, where a person would type
                done = run(*arguments, *SHORTER.get(arguments[0], ()), input=typed)
                assert done.returncode == 0, (line, done.stderr)
                output = done.stdout
        if ">" in words(line):
            Path(target).write_text(output, encoding="utf-8")
        return output

    return carry_out


def _split(rest: list[str], separator: str) -> Iterator[list[str]]:
    while rest:
        part = list(takewhile(lambda word: word != separator, rest))
        yield part
        rest = rest[len(part) + 1 :]


def test_the_first_ten_minutes_need_no_network(shell, hub):
    lines = section("The first ten minutes")
    assert len(lines) >= 6
    for line in lines:
        shell(line)
    assert Path("report.html").stat().st_size > 10_000
    assert hub.log == []


@pytest.fixture
def hub_with_gpt2(hub, tmp_path):
    """The local Hub serves a small model with GPT-2's vocabulary as `gpt2`."""
    directory = models.save_hub_directory(models.small_model(SHAPE), tmp_path / "served")
    hub.files = {path.name: path.read_bytes() for path in directory.iterdir()}
    return hub


@pytest.fixture
def prepared(tmp_path):
    """The files that the README's examples read."""
    records = [{"instruction": f"Say {number}.", "output": str(number)} for number in range(10)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    (tmp_path / "theirs.json").write_text(json.dumps(["1"] * len(records)))
    (tmp_path / "tales").mkdir()
    (tmp_path / "quiz.csv").write_text("question,answer\n" + "".join(f"Say {n}.,{n}\n" for n in range(10)))
    (tmp_path / "questions.txt").write_text("Who are you?\nWhy?\n")
    for name in ("tales/a.txt", "draft.txt"):
        (tmp_path / name).write_text("Once upon a time, an owl lived in a wood. " * 20)
    save_checkpoint(models.small_model(SHAPE), tmp_path / "finetuned.pt")
    for name in ("a.pt", "b.pt", "mine.pt", "robin.pt"):
        shutil.copy(tmp_path / "finetuned.pt", tmp_path / name)


def test_the_class_writes_a_table_of_30_questions(tmp_path):
    [block] = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    subprocess.run(["bash", "-c", block], cwd=tmp_path, check=True)
    found = read_records(tmp_path / "quiz.csv").good
    assert len(found) == 30
    assert (found[5].instruction, found[5].output) == ("What is 2 times 9?", "2 times 9 is 18.")


@pytest.mark.usefixtures("prepared", "hub_with_gpt2")
@pytest.mark.parametrize(
    "title", ["Your own texts", "Write", "Fine-tune", "Chat", "Evaluate", "Look inside", "Models", "Other programs"]
)
def test_the_examples_run(shell, title):
    if title == "Other programs":
        shell("gpt2 finetune --data records.json --lora --out lora.pt")
    lines = [line for line in section(title) if not any(part in line for part in NEEDS_NETWORK)]
    assert len(lines) >= 2
    for line in lines:
        for command in line.split(" && "):
            shell(command)


@pytest.mark.usefixtures("prepared")
def test_the_servers_start_and_the_request_is_answered(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.txt").write_text("secret\n")
    lines = section("Serve")
    [request] = [line for line in lines if line.startswith("curl ")]
    starts = [arguments for line in lines for arguments in commands(line)]
    assert [name for name, *_ in starts] == ["serve"] * 2
    for _, *options in starts:
        with serving(tmp_path, *options) as server:
            if shutil.which("curl") and "--api-key-file" not in options:
                sent = words(request.replace("http://127.0.0.1:8000", server.url))
                done = subprocess.run(sent, capture_output=True, text=True, timeout=PATIENCE, check=True)
                assert json.loads(done.stdout)["usage"]["completion_tokens"] <= 20
            assert server.status("/") == 200
            assert server.end(signal.SIGTERM) == 143


def test_the_python_example_runs(hub_with_gpt2, capsys):
    [example] = re.findall(r"<!-- test: python -->\n```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["text"] and names["chat"].exchanges == []
    assert names["logits"].shape == (1, 5, 50257)
    assert capsys.readouterr().out
    assert hub_with_gpt2.requests("GET", "model.safetensors") == [None]


def test_generate_downloads_on_first_use_and_never_again(hub_with_gpt2, run):
    args = ("generate", "The meaning of life is", "--temp", "0.7", "--top-k", "40", "--seed", "1", "-n", "5")
    first = run(*args)
    assert first.returncode == 0
    assert "downloaded 2 files" in first.stderr
    requests = list(hub_with_gpt2.log)
    second = run(*args, "--offline")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert hub_with_gpt2.log == requests
    [listed] = run("download-weights", "--list", "--json").stdout.splitlines()
    assert json.loads(listed)["model"] == "gpt2"
