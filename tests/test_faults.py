"""What a person sees of each fault: the exit code, one line on stderr, and everything that was there as it was.

How each is met is tested beside the module that meets it. Here the commands are run.
"""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2cli.checkpoints.save import save_checkpoint, save_tensors
from gpt2cli.config import GPTConfig
from gpt2cli.prompts import ALPACA
from tests import models
from tests.conftest import Run
from tests.training.records import write_records

CONFIG = GPTConfig(n_layer=1, n_head=1, n_embd=64, block_size=128)
STEPS = ("--max-steps", "2", "--eval-every", "0", "--sample-every", "0", "--val-fraction", "0", "--run-dir", "run")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a small model and some records in it, which the commands are run in."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    save_checkpoint(models.small_model(CONFIG), place / "good.pt", template=ALPACA.to_dict())
    write_records(place / "records.json", 12)
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def too_large_for_f16(work: Path) -> None:
    state = dict(models.small_model(CONFIG).state_dict())
    state["h.0.mlp.c_fc.weight"] = torch.full((256, 64), 1e6)
    save_tensors(state, CONFIG, work / "bad.pt")


def few_rows(work: Path) -> None:
    save_checkpoint(models.small_model(GPTConfig(1, 1, 64, 128, vocab_size=65)), work / "bad.pt")


def other_tokenizer(work: Path) -> None:
    folder = models.save_hub_directory(models.small_model(CONFIG), work / "folder")
    (folder / "vocab.json").write_text(json.dumps({f"word{i}": i for i in range(50257)}))
    (folder / "merges.txt").write_text("#version: 0.2\nw o\n")


def stride_0(work: Path) -> None:
    state = {name: tensor.clone() for name, tensor in models.small_model(CONFIG).state_dict().items()}
    torch.save(state | {"wte.weight": torch.zeros(1).expand(2**30, 64)}, work / "bad.pt")


def deflated(work: Path) -> None:
    with zipfile.ZipFile(work / "good.pt") as good, zipfile.ZipFile(work / "bad.pt", "w", zipfile.ZIP_DEFLATED) as bad:
        for entry in good.infolist():
            bad.writestr(entry.filename, good.read(entry))


def many_blocks(work: Path) -> None:
    save_file({f"h.{i}.ln_1.weight": torch.zeros(1) for i in range(20_000)}, work / "bad.safetensors")


def holds_itself(work: Path) -> None:
    value: list[object] = []
    for _ in range(40):
        value = [value, value]
    stored = torch.load(work / "good.pt", weights_only=True)
    torch.save(stored | {"config": stored["config"] | {"n_layer": value}}, work / "bad.pt")


def nothing(work: Path) -> None:
    pass


G = ("generate", "Once", "-n", "1", "--temp", "0", "--quiet")
REFUSED: list[tuple[int, Callable[[Path], None], int, str, tuple[str, ...]]] = [
    (42, too_large_for_f16, 4, "f16 cannot hold", ("export", "--ckpt", "bad.pt", "--format", "hf", "--dtype", "f16")),
    (42, too_large_for_f16, 4, "int4 cannot hold", ("quantize", "--ckpt", "bad.pt", "--bits", "4")),
    *(
        (43, few_rows, 4, "tokenizer", args)
        for args in (
            (*G, "--ckpt", "bad.pt"),
            ("chat", "--prompt", "Who?", "--ckpt", "bad.pt"),
            ("finetune", "--ckpt", "bad.pt", "--data", "records.json", *STEPS),
            ("evaluate", "--ckpt", "bad.pt", "--data", "records.json"),
        )
    ),
    *(
        (43, other_tokenizer, 4, "tokenizer", args)
        for args in (
            (*G, "--model", "./folder"),
            ("chat", "--prompt", "Who?", "--model", "./folder"),
            ("finetune", "--model", "./folder", "--data", "records.json", *STEPS),
            ("evaluate", "--model", "./folder", "--data", "records.json"),
        )
    ),
    (47, stride_0, 4, "bad.pt", (*G, "--ckpt", "bad.pt")),
    (47, deflated, 4, "bad.pt", (*G, "--ckpt", "bad.pt")),
    (47, many_blocks, 4, "bad.safetensors", (*G, "--ckpt", "bad.safetensors")),
    (48, holds_itself, 4, "nested or large", (*G, "--ckpt", "bad.pt")),
    *(
        (50, nothing, 6, "cannot write", args)
        for args in (
            ("finetune", "--ckpt", "good.pt", "--data", "records.json", *STEPS, "--out", "/proc/out.pt"),
            ("finetune", "--ckpt", "good.pt", "--data", "records.json", *STEPS[:-1], "/proc/run"),
            ("export", "--ckpt", "good.pt", "--format", "hf", "--out", "/proc/folder"),
            ("quantize", "--ckpt", "good.pt", "--bits", "8", "--out", "/proc/a.safetensors"),
            ("evaluate", "--ckpt", "good.pt", "--data", "records.json", "--out", "/proc/report.html"),
            ("prepare-alpaca", "--source", "records.json", "--out", "/proc/data"),
        )
    ),
    *(
        (50, nothing, 2, "empty", args)
        for args in (
            ("finetune", "--data", "", "--model", "tiny"),
            (*G, "--ckpt", ""),
            (*G, "--model", ""),
            (*G, "--stop", "", "--model", "tiny"),
            ("chat", "--prompt", "", "--ckpt", "good.pt"),
            ("export", "--ckpt", "good.pt", "--format", "hf", "--out", ""),
            ("evaluate", "--data", "", "--ckpt", "good.pt"),
            ("prepare-alpaca", "--source", ""),
        )
    ),
    *((55, nothing, 2, "name of a file", (*G, "--ckpt", name)) for name in ("x" * 300 + ".pt", "y/" * 3000 + "z.pt")),
    (55, nothing, 4, "", (*G, "--ckpt", "a\nb.pt")),
    (55, nothing, 2, "", (*G, "--model", "./" + "x" * 300)),
    (55, nothing, 2, "", (*G, "--model", "a\nb")),
]
OUT = {"export": "out", "quantize": "out.safetensors"}


@pytest.mark.parametrize(("number", "prepare", "code", "message", "args"), REFUSED)
def test_refused_in_one_line_with_everything_as_it_was(
    run: Run, work: Path, number: int, prepare: Callable[[Path], None], code: int, message: str, args: tuple[str, ...]
) -> None:
    prepare(work)
    if args[0] in OUT and "--out" not in args:
        args = (*args, "--out", OUT[args[0]])
    before = contents(work)
    done = run(*args)
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("loaded", "reading"))]
    assert done.returncode == code, done.stderr
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert re.search(message, errors[0])
    assert len(errors[0]) < 1200
    assert done.stdout == ""
    assert contents(work) == before


def test_54_newlines_of_windows_and_byte_order_marks_change_nothing(run: Run, work: Path) -> None:
    written = set()
    for i, text in enumerate(("Once upon\na time", "\ufeffOnce upon\r\na time\r\n")):
        (work / f"{i}.txt").write_bytes(text.encode())
        args = ("generate", "--prompt-file", f"{i}.txt", "--ckpt", "good.pt", "-n", "8", "--temp", "0", "--json")
        fields = json.loads(run(*args).stdout)
        written.add((fields["prompt"], fields["text"]))
    assert len(written) == 1


def test_53_controls_of_writing_direction_are_raw_in_a_pipe(run: Run, work: Path) -> None:
    done = run("generate", "a\u202eb\u2066c", "--ckpt", "good.pt", "-n", "1", "--quiet")
    assert done.stdout.startswith("a\u202eb\u2066c")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"a":' * 100_000, b"[1]", b'{"counters": {"step": "x"}}'])
def test_51_a_damaged_state_falls_back_to_the_checkpoint_before(run: Run, work: Path, damage: bytes) -> None:
    train = ("finetune", "--ckpt", "good.pt", "--data", "records.json", *STEPS, "--save-every", "1")
    train = (*train, "--seed", "3", "--keep-states")
    assert run(*train, "--max-steps", "3", "--out", "whole.pt").returncode == 0
    (work / "whole.pt").rename(work / "expected.pt")
    newest = max((work / "run" / "checkpoints").iterdir())
    (newest / "state.json").write_bytes(damage)
    (work / "run" / "summary.json").unlink()
    done = run("finetune", "--resume", "run", "--out", "again.pt")
    assert done.returncode == 0, done.stderr
    assert "trying the one before" in done.stderr
    expected, found = (torch.load(work / f"{name}.pt", weights_only=True)["model"] for name in ("expected", "again"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_52_a_validation_loss_that_is_not_finite_ends_the_run_before_it_is_saved(run: Run, work: Path) -> None:
    train = ("finetune", "--ckpt", "good.pt", "--data", "records.json", "--max-steps", "3", "--run-dir", "run")
    done = run(*train, "--lr", "1e30", "--warmup", "0", "--clip", "1e30", "--eval-every", "1", "--save-every", "1")
    assert done.returncode == 7, done.stderr
    assert not list((work / "run" / "checkpoints").glob("step-*"))
    assert not (work / "finetuned.pt").exists()
    for line in (work / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_56_no_home_directory_and_no_account(run_process: Run, work: Path, tmp_path: Path) -> None:
    env = {"HOME": "", "XDG_DATA_HOME": "", "XDG_CACHE_HOME": "", "GPT2CLI_HOME": str(tmp_path / "kept")}
    done = run_process(*G, "--ckpt", "good.pt", env=env)
    assert (done.returncode, done.stderr) == (0, "")


def test_44_a_directory_that_was_moved_away_is_there_for_the_next_command(run: Run, work: Path) -> None:
    models.save_hub_directory(models.small_model(CONFIG), work / "folder")
    (work / ".folder.0123abcd.tmp").mkdir()
    (work / "folder").rename(work / ".folder.0123abcd.tmp" / "old")
    done = run(*G, "--model", "./folder")
    assert done.returncode == 0, done.stderr
    assert load_file(work / "folder" / "model.safetensors")
