"""`gpt2 evaluate` as a process: what it prints and writes, and what happens when it is stopped or given nonsense."""

import json
import math
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from gpt2cli import tokenizer
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.cli.app import app
from gpt2cli.cli.error_messages import describe
from gpt2cli.cli.typer_internals import invoke
from gpt2cli.config import GPTConfig
from gpt2cli.errors import GPT2Error
from tests import models
from tests.conftest import Run
from tests.data.records import many, write_json, write_table
from tests.runner import little_room, screen, signal_when

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64)
COMMAND = [sys.executable, "-m", "gpt2cli", "evaluate"]
HOSTILE = {"instruction": "<script>alert(1)</script> [bold]x[/y] \x1b[2J", "output": "<b>[bold]& \x1b]52;c;x\x07</b>"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two checkpoints, records, and a text."""
    directory = tmp_path_factory.mktemp("work")
    for seed, name in enumerate(("a.pt", "b.pt")):
        save_checkpoint(models.small_model(SHAPE, seed), directory / name)
    write_json(directory / "records.json", [HOSTILE, *many(20)])
    (directory / "text.txt").write_text("Once upon a time there was a fox. " * 60)
    (directory / "empty.txt").write_text("")
    return directory


def call(*args: str) -> None:
    """The command in this process, which spares it starting one; errors come as they are raised."""
    invoke(app, ["evaluate", *args], {})


@pytest.fixture(autouse=True)
def inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)


def test_json_has_what_the_contract_says_for_each_model(run: Run, tmp_path: Path) -> None:
    args = ("--data", "records.json", "--model", "tiny", "--ckpt", "a.pt", "--ckpt", "b.pt")
    done = run("evaluate", *args, "--answers", "4", "-n", "5", "--json", "--out", str(tmp_path / "out.json"))
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert (told["data"], told["split"], told["records"], told["answers"]) == ("records.json", "all", 21, 4)
    assert [model["model"] for model in told["models"]] == ["tiny", "a.pt", "b.pt"]
    assert len({model["tokens"] for model in told["models"]}) == 1
    wanted = ["loss", "perplexity", "accuracy", "bleu", "chrf", "rouge_l", "exact_match", "answer_tokens", "ended"]
    assert all(key in model for key in wanted for model in told["models"])
    first, *others = told["models"]
    assert first["difference"] is None
    for other in others:
        change = other["difference"]["loss"]
        assert change["value"] == pytest.approx(other["loss"] - first["loss"])
        assert change["low"] <= change["value"] <= change["high"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written.pop("answered")[0]["answers"][0]["tokens"] <= 5
    assert written == told


def test_figures_and_answers_on_stdout_and_a_page(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    call("--data", "records.json", "--ckpt", "a.pt", "--ckpt", "b.pt", "-n", "3", "--out", str(page))
    told = capsys.readouterr()
    assert "perplexity" in told.out and "b.pt compared with a.pt" in told.out and "95 % interval" in told.out
    assert f"wrote {page}" in told.err and "\x1b" not in told.out + told.err
    html = page.read_text()
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)&lt;/script&gt; [bold]x[/y] ␛[2J" in html
    umask = os.umask(0)
    os.umask(umask)
    assert page.stat().st_mode & 0o777 == 0o666 & ~umask


def test_on_a_terminal_progress_is_shown_and_nothing_that_was_said_moves_the_cursor(work: Path, home: Path) -> None:
    write_json(work / "hostile.json", [HOSTILE])
    args = ("--data", "hostile.json", "--ckpt", "a.pt", "-n", "3")
    progress, found, shown = screen("evaluate", *args, NO_COLOR="1", COLUMNS="120").rpartition("answering a.pt")
    assert progress and found
    assert r"<script>alert(1)</script> [bold]x[/y] \x1b[2J" in shown and r"<b>[bold]& \x1b]52;c;x\x07</b>" in shown
    assert "\x1b[2J" not in shown and "\x07" not in shown


def test_a_text_is_scored_whole(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("--data", "text.txt", "--ckpt", "a.pt", "--stride", "16", "--json")
    [told] = json.loads(capsys.readouterr().out)["models"]
    text = Path("text.txt").read_text()
    assert told["tokens"] == len(tokenizer.encode(text))
    assert "bleu" not in told and told["perplexity"] > 1
    nats = told["loss"] * told["tokens"]
    assert told["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text.encode()))
    per_word = nats / len(text.split())
    assert told["word_perplexity"] == pytest.approx(math.exp(per_word))
    low, high = told["intervals"]["bits_per_byte"]
    assert low <= told["bits_per_byte"] <= high


def test_what_is_told_of_a_text_is_in_the_table_and_in_the_report(
    work: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "short.txt").write_text("Once upon a time there was a fox. " * 9)
    call("--data", "short.txt", "--model", "tiny", "--ckpt", "a.pt", "--out", str(tmp_path / "a.HTML"))
    shown, page = capsys.readouterr().out, (tmp_path / "a.HTML").read_text()
    for label in ("bits per byte", "word perplexity"):
        assert label in shown and label in page
    assert " points" in shown and " %]" not in shown


def test_the_newlines_of_windows_change_no_figure(work: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "A fox sat on a wall.\nIt saw a crow.\n" * 9
    figures = []
    for name, content in (("n.txt", text), ("rn.txt", "\ufeff" + text.replace("\n", "\r\n"))):
        (work / name).write_bytes(content.encode())
        call("--data", name, "--model", "tiny", "--json")
        figures.append(json.loads(capsys.readouterr().out)["models"])
    assert figures[0] == figures[1]


def test_answers_made_elsewhere_need_no_model(work: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = many(7)
    write_json(work / "seven.json", records)
    write_json(work / "right.json", [record["output"] for record in records])
    said = [record | {"model_response": "I do not know."} for record in records]
    (work / "wrong.jsonl").write_text("\n".join(map(json.dumps, said)))
    args = ("--data", "seven.json", "--answers-from", "wrong.jsonl", "--answers-from", "right.json")
    call(*args, "--json", "--out", "seven.html")
    told = json.loads(capsys.readouterr().out)
    wrong, right = told["models"]
    assert (told["answers"], told["records"]) == (7, 7)
    assert (wrong["model"], right["model"]) == ("wrong.jsonl", "right.json")
    assert (wrong["exact_match"], right["exact_match"], right["rouge_l"]) == (0, 1, 1)
    assert right["bleu"] == pytest.approx(100) and wrong["difference"] is None
    assert right["difference"]["exact_match"]["value"] == 1
    assert not {"loss", "perplexity", "ended"} & right.keys() and right["tokens"] is None
    call(*args)
    shown = capsys.readouterr().out
    assert "7 records, all answered" in shown and "Only 7 answers" in shown
    assert re.search(r"exact match ↑ +0.0 % +100.0 % +\+100.0 points +better", shown)
    assert not (home / "evaluations").exists()


def test_answers_made_elsewhere_beside_a_model(work: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = many(9)
    write_json(work / "nine.json", records)
    write_json(work / "said.json", [record["output"] for record in records])
    args = ("--data", "nine.json", "--ckpt", "a.pt", "--answers-from", "said.json", "--answers", "4", "-n", "3")
    call(*args, "--json", "--out", "nine.json.json")
    model, said = json.loads(capsys.readouterr().out)["models"]
    assert model["perplexity"] > 1 and said["exact_match"] == 1 and "perplexity" not in said
    assert said["difference"]["exact_match"]["value"] == 1
    answered = json.loads((work / "nine.json.json").read_text())["answered"]
    assert len(answered) == 4 and all(one["answers"][1]["text"] == one["reference"] for one in answered)
    assert {one["answers"][1]["finish_reason"] for one in answered} == {None}
    call(*args, "--out", "nine.html")
    assert "said.json" in capsys.readouterr().out


def test_questions_are_answered_by_each_model_and_by_a_file(
    work: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "q.txt").write_text("Who are you?\n\nWhat is 1 + 1?\nName a fruit.\n")
    write_json(work / "said.json", ["me", {"answer": "2"}, "pear"])
    args = ("--data", "q.txt", "--questions", "--ckpt", "a.pt", "--ckpt", "b.pt", "-n", "3")
    call(*args, "--answers-from", "said.json", "--json", "--out", "q.html")
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["records"], told["answers"], len(told["answered"])) == ("questions", 3, 3, 3)
    assert not {"loss", "perplexity", "bleu", "exact_match"} & {key for model in told["models"] for key in model}
    assert [record["answers"][2]["text"] for record in told["answered"]] == ["me", "2", "pear"]
    assert "Answers of" in (work / "q.html").read_text()
    call(*args, "--answers", "1")
    shown = capsys.readouterr()
    assert "q.txt: 3 questions, 1 of them answered" in shown.out and "a.pt: " in shown.out
    assert "loss" not in shown.out and "plain text" not in shown.err


def test_many_questions_are_chosen_from_by_default(work: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "many.txt").write_text("\n".join(f"What is {i}?" for i in range(70)))
    call("--data", "many.txt", "--questions", "--ckpt", "a.pt", "-n", "1", "--json")
    told = capsys.readouterr()
    assert json.loads(told.out)["answers"] == 64
    assert "64 of 70 questions are answered, chosen at random: --answers 70 is all" in told.err


def test_offline_bertscore_never_uses_the_network(
    work: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    package = tmp_path / "bert_score"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os, torch\n"
        "from huggingface_hub import constants\n"
        "assert os.environ['HF_HUB_OFFLINE'] == os.environ['TRANSFORMERS_OFFLINE'] == '1'\n"
        "assert constants.HF_HUB_OFFLINE\n"
        "def score(a, b, model_type, num_layers):\n"
        "    assert (model_type, num_layers) == ('bert', 4)\n"
        "    return (torch.full((len(a),), 0.5),) * 3\n"
    )
    (package / "utils.py").write_text("model2layers = {'bert': 4}")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("bert_score", "bert_score.utils"):
        monkeypatch.setitem(sys.modules, name, None)  # so that the module is removed after the test
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    write_json(work / "two.json", many(2))
    write_json(work / "two-said.json", ["a", "b"])
    args = ("--data", "two.json", "--answers-from", "two-said.json", "--bertscore", "--bertscore-model", "bert")
    call(*args, "--offline", "--json")
    [told] = json.loads(capsys.readouterr().out)["models"]
    assert (told["bertscore"], told["bertscore_precision"], told["bertscore_recall"]) == (0.5, 0.5, 0.5)


def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(work: Path, home: Path, run: Run) -> None:
    write_json(work / "much.json", many(150))
    args = ["--data", "much.json", "--ckpt", "a.pt", "-n", "30", "--answers", "150", "--json", "--out", "much.html"]

    def has_answered() -> bool:
        return any(b"answer " in file.read_bytes() for file in (home / "evaluations").glob("*.jsonl"))

    with signal_when(has_answered, signal.SIGINT):
        ended = run("evaluate", *args)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert "finished results are kept: the same command continues from them" in ended.stderr
    kept = list((home / "evaluations").glob("*.jsonl"))
    assert not (work / "much.html").exists()
    kept[0].write_bytes(kept[0].read_bytes() + b"torn")
    done = run("evaluate", *args)
    assert done.returncode == 0 and "continuing an interrupted run" in done.stderr
    assert list((home / "evaluations").iterdir()) == []


def test_a_full_disk_leaves_what_was_there(work: Path, run: Run) -> None:
    (work / "report.html").write_text("mine")
    args = ("evaluate", "--data", "records.json", "--ckpt", "a.pt", "-n", "3", "--out", "report.html")
    with little_room(8000):
        done = run(*args, "--force")
    assert done.returncode == 6 and done.stderr.count("error: ") == 1, done.stderr
    assert "error: cannot write report.html: File too large: the results are kept" in done.stderr
    assert (work / "report.html").read_text() == "mine" and not list(work.glob(".report*"))
    refused = run(*args)
    assert refused.returncode == 2 and "report.html is there already: use --force" in refused.stderr


@pytest.mark.parametrize("fraction", [0.3, 0])
def test_the_part_that_training_held_out_is_advised_only_if_there_is_one(
    work: Path, home: Path, capsys: pytest.CaptureFixture[str], fraction: float
) -> None:
    records = {"val_fraction": fraction, "test_fraction": 0, "subset": None, "seed": 3}
    data = {"kind": "alpaca", "source": str(work / "records.json"), "max_length": 64, "loss_on": "response"}
    told = {"data": data, "settings": {"records": records}}
    save_checkpoint(models.small_model(SHAPE), work / "told.pt", provenance=told)
    call("--data", "records.json", "--ckpt", "told.pt", "--answers", "0")
    note = "told.pt was trained on this data, so its scores are too good"
    advice = ": --split val takes the records that it has not seen"
    assert f"{note}{advice if fraction else ''}\n" in capsys.readouterr().err


def test_records_that_finetune_held_out_are_found_again(
    run: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = ("--data", "records.json", "--ckpt", "a.pt", "--max-steps", "1", "--seed", "3", "--val-fraction", "0.3")
    assert run("finetune", *trained, "--out", "tuned.pt", "--sample-every", "0", "--quiet").returncode == 0
    args = ("--data", "records.json", "--ckpt", "tuned.pt", "--answers", "0", "--json")
    for split, records, noted in ((("--split", "val"), 6, False), ((), 21, True), (("--split", "train"), 15, True)):
        call(*args, *split)
        told = capsys.readouterr()
        assert json.loads(told.out)["records"] == records
        assert ("tuned.pt was trained on this data, so its scores are too good" in told.err) == noted


def test_a_table_is_evaluated_like_the_records_in_it(
    work: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = json.loads((work / "records.json").read_text(encoding="utf-8"))
    rows = [{"q": each["instruction"], "in": each.get("input") or "", "a": each["output"]} for each in records]
    table = write_table(work / "records.tsv", rows, "\t")
    answers = write_table(work / "answers.csv", [{"n": "1", "answer": each["output"]} for each in records])
    found = []
    for data in (["records.json"], [table.name, "--columns", "instruction=q,input=in,output=a"]):
        call("--data", *data, "--answers-from", answers.name, "--json")
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["models"] == found[1]["models"]
    assert found[0]["records"] == found[1]["records"]


def test_conversations_are_scored_answered_and_shown_with_their_earlier_turns(
    work: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ("Hello?", "Hi.", "Who are you?", "A fox.")
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    talks = [{"messages": messages[:n], "system": "Talk."} for n in (4, 2, 3)]
    write_json(work / "talks.json", talks)
    write_json(
        work / "said.json", ["a fox", "hi", {"messages": [*messages[:1], {"role": "assistant", "content": "yo"}]}]
    )
    args = ("--data", "talks.json", "--ckpt", "a.pt", "--answers-from", "said.json", "-n", "3")
    call(*args, "--json", "--out", "talks.html")
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert (told["kind"], told["records"], told["turns"], told["answers"]) == ("alpaca", 3, 4, 3)
    assert told["models"][0]["tokens"] == sum(
        len(tokenizer.encode(text)) + 1 for text in ("Hi.", "A fox.", "Hi.", "Hi.")
    )
    assert "1 conversation ends with a question, which is left out" in shown.err
    assert "3 conversations, 4 turns, OpenAI's messages" in shown.err
    page = (work / "talks.html").read_text()
    assert page.count("<details") == 3 and page.count("1 earlier turn") == 1
    call(*args)
    assert "talks.json: 3 conversations of 4 turns with " in (text := capsys.readouterr().out)
    assert "\n  system: Talk.\nHello?\n  answer: Hi.\nWho are you?\n  reference: A fox.\n  a.pt: " in text
    call("--data", "talks.json", "--questions", "--ckpt", "a.pt", "-n", "3", "--json")
    asked = json.loads(capsys.readouterr().out)["answered"]
    assert [record["instruction"] for record in asked] == ["Who are you?", "Hello?", "Who are you?"]
    assert asked[0]["earlier"] == [{"instruction": "Hello?", "input": "", "output": "Hi."}]
    assert asked[0] == asked[2] and "earlier" not in asked[1]


def test_what_is_wrong_is_said_before_anything_is_done(work: Path, home: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "none.json", [])
    write_json(work / "one.json", ["a"])
    save_checkpoint(models.small_model(GPTConfig(1, 1, 8, 64, vocab_size=65)), work / "char.pt")
    a = ("--ckpt", "a.pt")
    for code, says, *args in (
        (2, "there is no finetuned.pt here to evaluate"),
        (2, "--stride must be 1 or more", *a, "--stride", "0"),
        (2, "below the model's window of 64 tokens", *a, "--data", "text.txt", "--stride", "64"),
        (2, "--stride is for plain text", *a, "--data", "records.json", "--stride", "8"),
        (2, "holds no instructions", *a, "--data", "text.txt", "--answers", "3"),
        (2, "is an input of the evaluation", *a, "--data", "records.json", "--out", "./records.json"),
        (2, "--questions to answer each line", *a, "--data", "text.txt", "--answers", "3"),
        (2, "questions have none", *a, "--data", "text.txt", "--questions", "--bertscore"),
        (2, "questions have no other results", *a, "--data", "text.txt", "--questions", "--answers", "0"),
        (2, "--stride is for plain text", *a, "--data", "text.txt", "--questions", "--stride", "8"),
        (3, "empty.txt has no questions", *a, "--data", "empty.txt", "--questions"),
        (3, "(21 answers, 1 question)", "--data", "text.txt", "--questions", "--answers-from", "records.json"),
        (2, "--answers must be", *a, "--answers", "-1"),
        (2, "device 'abacus' is not there", *a, "--device", "abacus"),
        (3, "no text", *a, "--data", "empty.txt"),
        (3, "no records", *a, "--data", str(tmp_path / "none.json")),
        (4, "b.safetensors is not there", *a, "--ckpt", "b.safetensors", "--data", "records.json"),
        (5, "the network is off", *a, "--offline"),
        (2, "--data is empty", *a, "--data", ""),
        (2, "has no column 'x'", *a, "--data", "records.json", "--columns", "output=x"),
        (2, "plain text has no columns", *a, "--data", "text.txt", "--columns", "output=x"),
        (2, "write FIELD=COLUMN", *a, "--data", "records.json", "--columns", "x"),
        (2, "did you mean lessons?", *a, "--data", "lesson"),
        (2, "not a known data format", *a, "--data", "a.pt"),
        (2, "leave --answers, --answers-from", "--data", "text.txt", "--answers-from", "records.json"),
        (2, "--answers 0 asks for none", "--data", "records.json", "--answers-from", "records.json", "--answers", "0"),
        (2, "is an input of the evaluation", "--answers-from", "records.json", "--out", "records.json"),
        (
            3,
            "lessons is empty: choose --split train (394 records) or val (44 records), or all",
            *a,
            "--data",
            "lessons",
            "--split",
            "test",
        ),
        (
            3,
            "one.json and records.json differ in length (1 answer, 21 records",
            "--data",
            "records.json",
            "--answers-from",
            "one.json",
        ),
        (4, "tokenizer", "--ckpt", "char.pt", "--data", "records.json"),
        (4, "tokenizer", "--ckpt", "char.pt", "--data", "text.txt"),
        (6, "there is no directory", *a, "--data", "records.json", "--out", "nowhere/report.html"),
        (6, "cannot write a.pt/r.html", *a, "--data", "records.json", "--out", "a.pt/r.html"),
        (2, "cannot be the name of a file", *a, "--data", "records.json", "--out", "a" * 300 + ".html"),
    ):
        with pytest.raises(GPT2Error) as caught:
            call(*args)
        assert describe(caught.value)[1] == code and says in str(caught.value), (args, caught.value)


def test_quiet_figures_come_alone_and_what_is_left_out_is_noted(run: Run, home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time.")
    (tmp_path / ".b.txt").write_text("hidden")
    noted = run("evaluate", "--ckpt", "a.pt", "--data", str(tmp_path), "--json")
    assert "left out" in noted.stderr and "'.b.txt'" in noted.stderr
    quiet = run("evaluate", "--ckpt", "a.pt", "--data", str(tmp_path), "--json", "--quiet")
    assert (quiet.returncode, quiet.stderr, quiet.stdout) == (0, "", noted.stdout)


def test_an_empty_set_is_one_line_and_a_code(run: Run) -> None:
    done = run("evaluate", "--ckpt", "a.pt", "--data", "empty.txt", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: empty.txt: there is no text to evaluate on: give another file\n"
