"""`gpt2 prepare-alpaca` as people and scripts run it: the faults, the summary, and what is on disk afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from gpt2cli.cli.app import app
from gpt2cli.cli.typer_internals import invoke
from gpt2cli.cli.views.dataset import show_example
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.kinds import FILE
from gpt2cli.data.open_data import load_data, load_records
from gpt2cli.data.prepared import fingerprint, read_prepared
from gpt2cli.data.records import Record
from gpt2cli.errors import ResourceError
from gpt2cli.prompts import PromptTemplate
from tests.cli.commands.test_download_weights import one_error
from tests.conftest import Run
from tests.data.records import RECORDS, many, write_json, write_table
from tests.hub_server import HubServer
from tests.runner import PATIENCE, clean_environment, little_room, screen

GOOD = json.dumps(RECORDS[0])

# runs the command and then tells, on stderr, how much memory it took at the most, in KiB
MEASURED = """
import sys
from gpt2cli.__main__ import main
from gpt2cli.model.peak_memory import peak_rss_mb
try:
    main()
finally:
    print(round(peak_rss_mb()), file=sys.stderr)
"""


def test_from_records_to_a_dataset(home: Path, run: Run, tmp_path: Path) -> None:
    records = write_json(tmp_path / "mine.json", many(40))
    done = run("prepare-alpaca", "--source", str(records), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["out"] == str(home / "datasets" / "mine")
    assert (found["kind"], found["source"], found["max_length"]) == ("alpaca", str(records), 1024)
    assert found["counts"]["kept"] == 40
    assert {name: part["records"] for name, part in found["splits"].items()} == {"train": 34, "val": 4, "test": 2}
    assert sum(part["tokens"] for part in found["splits"].values()) == found["counts"]["tokens"]
    in_memory = load_data(records, TrainConfig(), DataConfig(), 1024)
    prepared = read_prepared(home / "datasets" / "mine", with_records=True)
    found_records = [record for part in prepared.records.values() for record in part]
    assert sorted(map(repr, found_records)) == sorted(repr(Record(**record)) for record in many(40))
    assert fingerprint(prepared) == fingerprint(in_memory) == found["fingerprint"]
    assert prepared.info == in_memory.info


def test_a_table_becomes_the_dataset_of_its_records(home: Path, run: Run, tmp_path: Path) -> None:
    renamed = [{"q": each["instruction"], "a": each["output"]} for each in many(40)]
    found = []
    for file, columns in (
        (write_json(tmp_path / "json.json", many(40)), []),
        (write_table(tmp_path / "table.csv", renamed), ["--columns", "instruction=q,output=a"]),
    ):
        done = run("prepare-alpaca", "--source", str(file), "--json", *columns)
        found.append(json.loads(done.stdout))
    assert done.stderr == "takes q as instruction, a as output; commas separate the columns\n"
    assert found[0]["fingerprint"] == found[1]["fingerprint"]
    assert found[1]["columns"] == {"instruction": "q", "output": "a"}
    assert read_prepared(home / "datasets" / "table").info["columns"] == found[1]["columns"]
    wrong = run("prepare-alpaca", "--source", str(file), "--columns", "instruction=x,output=a", "--force")
    assert "has no column 'x': --columns can name 'q', 'a'" in one_error(wrong, 2)


def test_what_is_there_stays_without_force(run: Run, tmp_path: Path) -> None:
    out, records = tmp_path / "out", write_json(tmp_path / "a.json", many(40))
    arguments = ("prepare-alpaca", "--source", str(records), "--out", str(out), "--json")
    assert run(*arguments).returncode == 0
    before = (out / FILE).read_bytes()
    (out / "notes.md").write_text("mine", encoding="utf-8")
    assert "--force" in one_error(run(*arguments, "--seed", "1"), 2)
    assert "is a file" in one_error(run(*arguments[:-2], str(records), "--force"), 2)
    bad = write_json(tmp_path / "bad.json", [{"instruction": 1}])
    assert "record 1 " in one_error(run(*arguments, "--source", str(bad), "--force"), 3)
    assert (out / FILE).read_bytes() == before
    assert run(*arguments, "--seed", "1", "--force").returncode == 0
    assert (out / FILE).read_bytes() != before
    assert {path.name for path in out.iterdir()} == {FILE, "notes.md"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f"[{GOOD},\n {{]".encode(), "bad JSON at line 2, column 3"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'[{"instruction": NaN, "output": "a"}]', "record 1 has NaN as 'instruction'"),
        (b'{"instruction": "a", "output": "b"}', "not a list of records"),
        (f'[{GOOD}, {{"instruction": "\x1b[31m", "output": 3}}]'.replace("\x1b", "\\u001b").encode(), "record 2 "),
        (b'[{"instruction": "a", "output": " "}]', "1 record without an output"),
    ],
)
def test_bad_files(run: Run, tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    assert told in one_error(run("prepare-alpaca", "--source", str(file), "--out", str(tmp_path / "out")), 3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--val-fraction", "0.6", "--test-fraction", "0.5"], "--val-fraction + --test-fraction must be below 1"),
        (["--val-fraction", "nan"], "--val-fraction must be at least 0 and below 1, not nan (see `gpt2 prepare-alpaca"),
        (["--subset", "0"], "--subset must be 1 or more"),
        (["--max-length", "1"], "--max-length must be 2 or more"),
        (["--loss-on", "prompt_too"], "--loss-on must be response or all, not 'prompt_too'"),
        (["--source", "nowhere.json"], "nowhere.json is not there"),
        (["--source", "http://example.org/a.json"], "only https"),
    ],
)
def test_what_cannot_be_asked(home: Path, run: Run, arguments: list[str], told: str) -> None:
    assert told in one_error(run("prepare-alpaca", *arguments), 2)
    assert not home.exists()


def call(*args: str) -> None:
    """The command in this process, which spares it starting one; errors come as they are raised."""
    invoke(app, ["prepare-alpaca", *args], {})


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    bad = write_json(tmp_path / "bad.json", [{"instruction": 1}])
    with pytest.raises(ResourceError, match=r"cannot write .*file/out: Not a directory"):
        call("--source", str(bad), "--out", str(tmp_path / "file" / "out"))


def test_a_home_directory_is_meant_where_the_shell_leaves_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    records = write_json(tmp_path / "a.json", many(5))
    call("--source", str(records), "--out=~/made", "--json")
    assert (tmp_path / "made" / FILE).is_file()


def test_what_of_the_records_is_not_used_is_noted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = write_json(tmp_path / "a.json", [record | {"history": [["a", "b"]]} for record in many(5)])
    call("--source", str(records), "--json")
    told = capsys.readouterr()
    assert "5 of 5 records have other fields, which are not used (such as 'history')" in told.err
    assert json.loads(told.out)["counts"]["kept"] == 5


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_the_example_is_divided_by_the_template_of_the_data(
    tmp_path: Path, loss_on: Literal["response", "all"], capsys: pytest.CaptureFixture[str]
) -> None:
    template = PromptTemplate("Q: {instruction} {input}\nA:", "Q: {instruction}\nA:")
    records = write_json(tmp_path / "a.json", [{"instruction": "Say A:", "output": " ### Response:\nA"}] * 3)
    splits = load_records(records, 99, loss_on, DataConfig(0, 0), template=template)
    console = Console(force_terminal=True, color_system="standard", highlight=False)
    show_example(console, splits)
    shown = capsys.readouterr().out
    assert "\x1b[2mA:\x1b[0m\x1b[1m ### Response:\x1b[0m" in shown.replace("\n", "") or (
        "\x1b[2mQ: Say A:\x1b[0m\n\x1b[2mA:\x1b[0m\x1b[1m ### Response:\x1b[0m" in shown
    )


def test_the_summary(run: Run, tmp_path: Path) -> None:
    long = {"instruction": "Read this. " * 60, "output": "Done."}
    talk = {"instruction": "Talk.", "output": "word " * 400}
    hush, bad = {"instruction": "Hush.", "output": ""}, {"instruction": "What?"}
    records = write_json(tmp_path / "a.json", [*RECORDS[-1:] * 30, talk, talk, long, hush, bad])
    arguments = ["prepare-alpaca", "--source", str(records), "--max-length", "150", "--out", str(tmp_path / "out")]
    done = run(*arguments, "--skip-bad")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [line for line in done.stdout.splitlines() if "kept" in line]
    assert line == (
        "32 of 35 records kept · 2 cut to 150 tokens · 1 dropped for want of an output · "
        "1 dropped, their prompts alone filling 150 tokens · 1 malformed and skipped"
    )
    assert "█" in done.stdout
    assert "### Instruction:\n[bold]Shout[/bold] \\x1b[31m\n" in done.stdout
    assert "HEY [/x]\\x1b]52;c;x\\x07" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.endswith(f"{tmp_path / 'out'}\n")
    plain = run(*arguments, "--skip-bad", "--force", "--loss-on", "all", encoding="ascii")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert "###### " in plain.stdout


def talk(*texts: str, system: str = "") -> dict[str, list[dict[str, str]]]:
    """A conversation in OpenAI's format: question, answer, question ..."""
    messages = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    messages += [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": messages}


def test_the_summary_of_conversations(home: Path, run: Run, tmp_path: Path) -> None:
    whole = talk("Say A.", "A", "And then?", "B", system="Be brief.")
    long, asking = talk("One?", "1 " * 80, "Two?", "2"), talk("Ask.", "Yes?", "Why?")
    file = write_json(tmp_path / "chats.json", [whole] * 20 + [long, asking])
    done = run("prepare-alpaca", "--source", str(file), "--max-length", "120", "--val-fraction", "0.1")
    assert done.returncode == 0, done.stderr
    assert "22 conversations, 43 turns, OpenAI's messages" in done.stderr
    heading = next(line for line in done.stdout.splitlines() if "turns" in line)
    assert heading.split() == ["conversations", "turns", "tokens", "of", "them", "learned"]
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("train", "val", "test"))]
    assert sum(int(row[1]) for row in rows) == 22 and sum(int(row[2]) for row in rows) == 42
    assert (
        "22 of 22 conversations kept, with 42 turns\n"
        "1 without their first turns, to fit 120 tokens · 1 without their last question, which has no answer\n"
    ) in done.stdout
    prompt = "Be brief.\n\n### Instruction:\n{}\n\n### Response:\n"
    assert f"{prompt.format('Say A.')}A<|endoftext|>\n{prompt.format('And then?')}B\n" in done.stdout
    counts = json.loads(run("prepare-alpaca", "--source", str(file), "--force", "--json").stdout)["counts"]
    assert (counts["kept"], counts["turns"], counts["shortened"], counts["unanswered"]) == (22, 43, 0, 1)


def test_a_file_on_the_hub_is_prepared_under_the_name_of_its_dataset(hub: HubServer, home: Path, run: Run) -> None:
    hub.repo, hub.files = "owner/talks", {"data/train.jsonl": "\n".join(map(json.dumps, [talk("a", "b")] * 9)).encode()}
    done = run("prepare-alpaca", "--source", "hf:owner/talks/data/train.jsonl", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["out"], told["source"]) == (str(home / "datasets" / "talks-train"), "hf:owner/talks/data/train.jsonl")


def test_on_a_terminal(home: Path, tmp_path: Path) -> None:
    records = write_json(tmp_path / "a.json", many(40))
    shown = screen("prepare-alpaca", "--source", str(records), COLUMNS="200")
    assert "tokenizing" in shown
    assert "\x1b[2mBelow is an instruction" in shown
    assert "it is.\x1b[0m" in shown


def test_cleaned_and_offline(hub: HubServer, home: Path, run: Run) -> None:
    assert "or give a file of your own" in one_error(run("prepare-alpaca", "--offline"), 5)
    hub.repo, hub.files = "yahma/alpaca-cleaned", {"alpaca_data_cleaned.json": json.dumps(many(40)).encode()}
    done = run("prepare-alpaca", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["out"] == str(home / "datasets" / "alpaca-cleaned")
    again = run("prepare-alpaca", "--json", "--offline", "--out", str(home / "other"))
    assert json.loads(again.stdout)["fingerprint"] == json.loads(done.stdout)["fingerprint"]
    assert "downloaded before" in again.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on files")
def test_a_full_disk_keeps_the_old(home: Path, run: Run, tmp_path: Path) -> None:
    records = write_json(tmp_path / "a.json", many(40))
    assert run("prepare-alpaca", "--source", str(records), "--json").returncode == 0
    before = (home / "datasets" / "a" / FILE).read_bytes()
    arguments = ["prepare-alpaca", "--source", str(records), "--force"]
    with little_room(1000):
        done = run(*arguments)
    assert "free some space" in one_error(done, 6)
    assert [path.name for path in (home / "datasets" / "a").iterdir()] == [FILE]
    assert (home / "datasets" / "a" / FILE).read_bytes() == before


@pytest.mark.slow
def test_a_record_of_100_megabytes(home: Path, tmp_path: Path) -> None:
    records = tmp_path / "a.json"
    huge = "word " * 20_000_000
    records.write_text(f'[{GOOD}, {{"instruction": "Talk.", "output": "{huge}"}}]', encoding="utf-8")
    del huge
    command = [sys.executable, "-c", MEASURED, "prepare-alpaca", "--source", str(records), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert (counts["kept"], counts["truncated"]) == (2, 1)
    # torch alone takes 200 MB; its tokens as Python's numbers would take 800
    assert int(done.stderr) < 700
