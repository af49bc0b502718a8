"""`gpt2 explain`: what it prints and writes, on a terminal and in a pipe, and what it refuses."""

import json
import signal
from pathlib import Path

import pytest
import torch

from gpt2cli import tokenizer
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.cli.chat_session import Session
from gpt2cli.config import GPTConfig
from gpt2cli.generation.text import TextGeneration
from gpt2cli.insight import explain as engine
from gpt2cli.insight.events import Advanced
from gpt2cli.insight.limits import PARTS
from gpt2cli.prompts import PromptTemplate
from tests import models
from tests.conftest import Run
from tests.runner import little_room, run_here, screen, signal_when

PROMPT = "Once upon a time there was a little"
KEYS = {"tokens", "next", "sampled", "lens", "heads", "attribution", "saliency", "ablation"}
ASKED = ["model", "prompt", "ids", "bos", "chat", "target", "foil", "ablated", "settings"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with checkpoints of a small model, and of one with another vocabulary."""
    directory = tmp_path_factory.mktemp("work")
    for seed, name in enumerate(("a.pt", "b.pt")):
        save_checkpoint(models.small_model(seed=seed), directory / name)
    save_checkpoint(models.small_model(GPTConfig(1, 1, 8, 64, vocab_size=65)), directory / "char.pt")
    return directory


@pytest.fixture(autouse=True)
def inside(work: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)


def explained(*args: str, prompt: str = "One two three") -> dict:
    done = run_here("explain", prompt, "--json", *args)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    return json.loads(done.stdout)


def test_json_has_what_was_asked_and_every_part() -> None:
    found = explained("--model", "tiny", prompt=PROMPT)
    assert list(found)[: len(ASKED)] == ASKED and set(found) == {*ASKED, *KEYS}
    assert (found["model"], found["prompt"], found["bos"], found["foil"]) == ("tiny", PROMPT, False, None)
    assert found["ids"] == [row["id"] for row in found["tokens"]] == tokenizer.encode(PROMPT)
    assert found["target"]["text"] == found["next"][0][0] == " girl"
    assert len(found["heads"]) == 8 * 6 and len(found["ablation"]) == 8 * 7 and len(found["lens"]) == 17


def test_parts_are_chosen_and_a_file_has_the_same_numbers(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = ("--ckpt", "a.pt", "--parts", "next, lens", "--top", "3", "--target", " Paris", "--foil", " London")
    found = explained(*options, "--out", str(out))
    assert set(found) == {*ASKED, "next", "sampled", "lens"}
    assert [row[0] for row in found["next"]][3:] == [" London", " Paris"], "3 likely tokens, then what was asked about"
    assert (found["target"]["text"], found["foil"]["text"], found["settings"]["top"]) == (" Paris", " London", 3)
    assert json.loads(out.read_text()) == found
    assert explained(*options, "--out", str(out)) == found, "an earlier explanation is replaced"


def test_the_end_of_text_before_both_prompts() -> None:
    found = explained("--ckpt", "a.pt", "--bos", "--against", "One six three", "--parts", "tokens,patching")
    assert found["bos"] and found["ids"][0] == tokenizer.END_OF_TEXT_ID and len(found["ids"]) == 4
    assert len(found["patching"]["stream"][0]) == 4


def chat_reads(ckpt: str, instruction: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that `gpt2 chat` sends to the model."""
    read: list[list[int]] = []

    def started(session: Session, prompt: list[int]) -> TextGeneration:
        read.append(prompt)
        return start(session, prompt)

    start = Session.start
    with monkeypatch.context() as patched:
        patched.setattr(Session, "start", started)
        assert run_here("chat", "--ckpt", ckpt, "--prompt", instruction, "-n", "1").returncode == 0
    return read[0]


@pytest.mark.parametrize("instruction", ["Who are you?", "a <|endoftext|>\n b"])
@pytest.mark.parametrize("ckpt", ["chat.pt", "long.pt", "text.pt"])
def test_an_instruction_has_the_tokens_of_chat(
    ckpt: str, instruction: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = GPTConfig(1, 1, 8, 128)
    template = PromptTemplate("Q: {instruction} {input}\nA:", "Q: {instruction}\nA:")
    save_checkpoint(models.small_model(shape), work / "long.pt")
    save_checkpoint(models.small_model(shape, seed=1), work / "chat.pt", template=template.to_dict())
    save_checkpoint(models.small_model(shape), work / "text.pt", provenance={"data": {"kind": "text"}})
    expected = chat_reads(ckpt, instruction, monkeypatch)
    found = explained("--ckpt", ckpt, "--chat", "--parts", "next", prompt=instruction)
    assert (found["ids"], found["prompt"], found["chat"]) == (expected, instruction, True)
    for other in ("long.pt", "chat.pt"):  # the template of the model that has one, the second before the first
        both = explained("--ckpt", other, "--ckpt", ckpt, "--chat", "--parts", "next", prompt=instruction)
        if ckpt == "chat.pt":
            assert both["ids"] == expected


def test_the_second_model_is_compared_with_the_first() -> None:
    found = explained("--ckpt", "a.pt", "--ckpt", "b.pt", "--parts", "next,lens,attribution")
    assert (found["model"], found["compared"]["model"]) == ("a.pt", "b.pt")
    assert found["compared"]["next"][0].keys() >= {"name", "before", "after"}


def test_named_parts_are_removed_before_everything_else() -> None:
    whole, less = (explained("--ckpt", "a.pt", *more) for more in ((), ("--ablate", "0.1", "--ablate", "mlp.1")))
    assert less["ablated"] == ["0.1", "mlp.1"]
    added = {row["part"]: row["contribution"] for row in less["attribution"]["parts"]}
    assert added["0.1"] == added["mlp.1"] == 0 and added["0.0"] != 0
    assert whole["attribution"]["logit"] != less["attribution"]["logit"]


@pytest.mark.parametrize(("prompt", "ids"), [("", [50256]), ("<|endoftext|>", [50256]), ("x", [87])])
def test_one_token_is_enough(prompt: str, ids: list[int]) -> None:
    found = explained("--ckpt", "a.pt", prompt=prompt)
    assert found["ids"] == ids and found["tokens"][0]["logprob"] is None
    done = run_here("explain", prompt, "--ckpt", "a.pt")
    assert (done.returncode, "the prompt is empty" in done.stderr) == (0, prompt == "")


def test_of_several_tokens_the_first_is_the_target(run: Run) -> None:
    done = run("explain", "One two", "--ckpt", "a.pt", "--target", "three four", "--parts", "next")
    assert done.returncode == 0 and done.stderr.splitlines() == [
        "--target 'three four' has 2 tokens: only the first counts, 'three'",
        "--target 'three four' continues the prompt's last word: ' three four' begins a new one",
    ]


@pytest.mark.parametrize("kind", ["untied", "int8", "int4", "gguf"])
def test_other_files(run: Run, kind: str, tmp_path: Path) -> None:
    if kind == "untied":
        model = models.small_model(GPTConfig(n_layer=2, n_head=1, n_embd=64, block_size=37))
        file = tmp_path / "untied.pt"
        torch.save(models.original_state(model, model.wte.weight.detach().flip(0)), file)
    elif kind == "gguf":
        file = tmp_path / "a.gguf"
        assert run("export", "--ckpt", "a.pt", "--format", "gguf", "--out", str(file)).returncode == 0
    else:
        file = tmp_path / "a.safetensors"
        assert run("quantize", "--ckpt", "a.pt", "--bits", kind[-1], "--out", str(file)).returncode == 0
    found = explained("--ckpt", str(file))
    with torch.no_grad():
        logits = load_plain(ckpt=file)(torch.tensor([found["ids"]]))[0, -1]
    assert found["target"]["id"] == int(logits.argmax())
    parts = sum(row["contribution"] for row in found["attribution"]["parts"])
    assert parts == pytest.approx(found["attribution"]["logit"], abs=1e-4)
    assert found["attribution"]["logit"] == pytest.approx(float(logits.max()), abs=1e-4)


WRONG = [
    (2, "--parts has no 'heads': did you mean attention?", "--parts", "lens,heads"),
    (2, "--parts has no 'x': choose from tokens, next,", "--parts", "x"),
    (2, "patching needs --against TEXT", "--parts", "patching"),
    (2, "--against is for patching: add patching to --parts", "--against", "x", "--parts", "lens"),
    (2, "--against has 2 tokens and the prompt has 3: they must have the same number", "--against", "One two"),
    (2, "99.0 is not there: this model has layers 0 to 1", "--ablate", "99.0"),
    (2, "0.7 is not there: a layer of this model has heads 0 to 2", "--ablate", "0.7"),
    (2, "'head' names no part of a model: write 9.6", "--ablate", "head"),
    (2, "--target is empty", "--target", ""),
    (2, "choose another --target", "--target", " four", "--foil", " four"),
    (2, "--top must be from 1 to 1,000, not 0", "--top", "0"),
    (2, "--steps must be from 1 to 1,000, not 1001", "--steps", "1001"),
    (2, "--ablation must be zero or mean, not 'none'", "--ablation", "none"),
    (2, "--temp must be a finite number, 0 or more", "--temp", "-1"),
    (2, "explain compares two models, and 3 are given: a.pt, b.pt, a.pt", "--ckpt", "b.pt", "--ckpt", "a.pt"),
    (2, "page.txt is no name for an explanation: let it end in .html or .json", "--out", "page.txt"),
    (2, "is there already: use --force", "--out", "mine.json"),
    (2, "--chat does not go with --bos", "--chat", "--bos"),
    (2, "--chat does not go with --against", "--chat", "--against", "x"),
    (2, "there is no option --precision", "--precision", "int8"),
    (6, "there is no directory", "--out", "nowhere/page.html"),
]


@pytest.mark.parametrize(("code", "says", "options"), [(code, says, rest) for code, says, *rest in WRONG])
def test_what_is_wrong_is_said_in_one_line(run: Run, work: Path, code: int, says: str, options: list[str]) -> None:
    (work / "mine.json").write_text('{"model": "mine"}')
    done = run("explain", "One two three", "--ckpt", "a.pt", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert (work / "mine.json").read_text() == '{"model": "mine"}' and not (work / "page.txt").exists()


def test_models_and_prompts_that_cannot_be_explained(run: Run, tmp_path: Path) -> None:
    broken = models.small_model()
    with torch.no_grad():
        broken.ln_f.weight.fill_(3e38)
    save_checkpoint(broken, tmp_path / "huge.pt")
    for code, says, prompt, *options in (
        (4, "tokenizer", "One", "--ckpt", "char.pt"),
        (7, "numbers that are not finite", "One two", "--ckpt", str(tmp_path / "huge.pt")),
        (2, "40 tokens", "x" + " x" * 39, "--ckpt", "a.pt"),
        (2, "put the prompt in quotes", "One", "two", "--ckpt", "a.pt"),
    ):
        done = run("explain", prompt, *options)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr and done.stderr.count("\n") == 1


def test_a_full_disk_does_not_lose_what_was_found(run: Run, tmp_path: Path) -> None:
    for name in ("page.html", "found.json"):
        with little_room(2000):
            done = run("explain", "One two three", "--ckpt", "a.pt", "--json", "--out", str(tmp_path / name))
        assert done.returncode == 6 and done.stderr.startswith(f"error: cannot write {tmp_path / name}: ")
        assert set(json.loads(done.stdout)) == {*ASKED, *KEYS}
        assert list(tmp_path.iterdir()) == []


def test_ctrl_c_shows_and_writes_the_parts_that_are_done(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(subject: object, config: object):
        while True:
            reached.append(True)
            yield Advanced("ablation", len(reached), 10**9)

    reached: list[bool] = []
    monkeypatch.setitem(engine.FINDERS, "ablation", endless)
    out = tmp_path / "found.json"
    with signal_when(lambda: bool(reached), signal.SIGINT):
        done = run("explain", "One two three", "--ckpt", "a.pt", "--json", "--out", str(out))
    assert done.returncode == 130 and "stopped: these are the parts that were finished" in done.stderr
    assert set(json.loads(done.stdout)) == {*ASKED, *KEYS} - {"ablation"}
    assert json.loads(out.read_text()) == json.loads(done.stdout)


def test_the_summary_fits_on_a_screen() -> None:
    prompt = "The old man looked at the sea, and said to the little boy:"
    shown = screen("explain", prompt, "--model", "tiny")
    lines = shown.rstrip("\n").split("\n")[-30:]
    assert any("15 tokens" in line for line in lines) and "\x1b[" in shown
    plain = screen("explain", prompt, "--model", "tiny", NO_COLOR="1")
    summary = plain[plain.index("tiny · 15") :]
    assert "\x1b" not in summary and max(map(len, summary.splitlines())) <= 80
    assert all(word in summary for word in ("next token", "layer", "head or MLP", "moves it", "surprisal"))


def test_a_pipe_gets_plain_lines_and_control_characters_are_spelled_out() -> None:
    hostile = "One \x1b[2J \x07 two"
    done = run_here("explain", hostile, "--ckpt", "a.pt", "--target", "\x1b")
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\x07" not in done.stdout
    assert r"\x1b" in done.stdout and not any(line.endswith(" ") for line in done.stdout.splitlines())
    assert "\x1b[2J" not in screen("explain", hostile, "--ckpt", "a.pt", NO_COLOR="1")


def test_long_prompts_leave_slow_parts_out_and_say_so(run: Run, tmp_path: Path) -> None:
    save_checkpoint(models.small_model(GPTConfig(1, 1, 8, 300)), tmp_path / "long.pt")
    prompt = "x" + " x" * 256
    done = run("explain", prompt, "--ckpt", str(tmp_path / "long.pt"), "--json")
    assert "left out for 257 tokens: saliency, ablation; --parts saliency,ablation computes them" in done.stderr
    assert set(json.loads(done.stdout)) == {*ASKED, *KEYS} - {"saliency", "ablation"}
    done = run("explain", prompt, "--ckpt", str(tmp_path / "long.pt"), "--json", "--parts", "saliency", "--steps", "2")
    assert (done.stderr, len(json.loads(done.stdout)["saliency"]["tokens"])) == ("", 257)


def test_the_parts_in_their_order() -> None:
    assert tuple(engine.FINDERS) == PARTS


def test_a_prompt_that_ends_with_a_blank_is_noted() -> None:
    for command in (("explain", "--parts", "next"), ("generate", "-n", "1")):
        for prompt, noted in (("One ", True), ("One", False)):
            done = run_here(*command, prompt, "--ckpt", "a.pt")
            assert done.returncode == 0 and ("the prompt ends with a blank" in done.stderr) == noted


def test_a_prompt_cannot_be_patched_with_itself() -> None:
    done = run_here("explain", "One two", "--ckpt", "a.pt", "--against", "One two", "--parts", "patching")
    assert (done.returncode, done.stdout) == (2, "") and "--against is the prompt itself" in done.stderr
