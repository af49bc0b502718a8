"""`gpt2 info`: what is on disk, and how to delete it; a model's parts, sizes and origin."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from gpt2cli import paths
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.cli import model_info
from gpt2cli.cli.stored_files import delete_command, places
from gpt2cli.cli.views.block_drawing import drawing
from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.inference.cpu import compiling
from gpt2cli.model.anatomy import count_parameters
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.prompts import ALPACA
from tests import models
from tests.conftest import Run
from tests.runner import screen
from tests.training.test_run_list import make_run


@pytest.fixture
def full(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with something of each kind, and files of somebody else. The cache is in it too."""
    monkeypatch.setenv("GPT2CLI_CACHE", str(tmp_path / "cache"))
    make_run(home / "runs" / "20260101-000000-a")
    for name, size in (
        ("models/o--n/main/model.safetensors", 100),
        ("datasets/alpaca/data.safetensors", 20),
        ("datasets/downloads/a.json", 3),
        ("evaluations/0.jsonl", 4),
        ("packed/int8-0.packed", 6),
        ("mine.txt", 1000),
        ("../cache/compiled/loop", 5),
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x" * size)
    (home / "chat_history").write_text("\n# 2026-01-01\n+Hello\n\n# 2026-01-02\n+How\n+are you?\n")
    return home


def test_every_place_has_its_size_and_its_number(full: Path) -> None:
    found = {place.name: (place.count, place.bytes) for place in places()}
    runs = found.pop("runs")
    assert runs[0] == 1 and runs[1] > 100
    assert found == {
        "models": (0, 100),
        "data sets": (2, 23),
        "interrupted evaluations": (1, 4),
        "chat lines": (3, (full / "chat_history").stat().st_size),
        "packed models": (1, 6),
        "compiled loops": (1, 5),
    }


def test_the_last_line_deletes_all_that_is_ours_and_nothing_else(run: Run, full: Path) -> None:
    done = run("info")
    assert done.returncode == 0, done.stderr
    assert "3 chat lines, " in done.stdout and "1 run, " in done.stdout
    assert "  gpt2 runs --remove RUN\n" in done.stdout and "  gpt2 download-weights --remove MODEL\n" in done.stdout
    command = done.stdout.splitlines()[-1].partition("to delete everything: ")[2]
    rm, option, *named = shlex.split(command)
    ours = [path for path in full.iterdir() if path.name != "mine.txt"]
    assert (rm, option) == ("rm", "-r") and sorted(map(Path, named)) == sorted([*ours, full.parent / "cache/compiled"])
    for path in map(Path, named):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "nothing is on disk yet" in run("info").stdout


def test_json_is_one_object(run: Run, full: Path) -> None:
    [line] = run("info", "--json").stdout.splitlines()
    found = json.loads(line)
    assert list(found) == ["home", "places", "remove_all"] and found["home"] == str(full)
    assert {"name", "path", "bytes", "count", "remove"} == set(found["places"][0])


@pytest.mark.usefixtures("full")
def test_paths_are_never_folded_on_a_terminal() -> None:
    shown = screen("info", COLUMNS="40", NO_COLOR="1")
    assert f"  {paths.runs()}\n" in shown


def test_nothing_is_made_by_looking(run: Run, home: Path) -> None:
    assert run("info").returncode == 0
    assert not home.exists()


def test_the_commands_fit_the_shell(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "file").touch()
    assert delete_command(tmp_path / "a b", windows=False) == f"rm -r '{tmp_path}/a b'"
    both = delete_command(tmp_path / "a b", tmp_path / "file", windows=True)
    assert both == f'rmdir /s "{tmp_path}/a b" & del "{tmp_path}/file"'


def test_the_loops_are_where_the_compiler_keeps_them() -> None:
    assert compiling.store().directory == paths.compiled()


KEYS = ("model", "n_layer", "n_head", "n_embd", "block_size", "vocab_size", "parameters", "flops_per_token")
MORE_KEYS = ("kv_cache_bytes_per_token", "weight_bytes", "memory_mb", "template", "provenance")


def test_a_model_in_json(run: Run) -> None:
    [line] = run("info", "--model", "tiny", "--json").stdout.splitlines()
    found = json.loads(line)
    assert {*KEYS, *MORE_KEYS} <= set(found)
    assert (found["model"], found["n_layer"], found["n_head"], found["n_embd"]) == ("tiny", 8, 6, 384)
    parameters = found["parameters"]
    assert parameters.pop("total") == sum(parameters.values()) == 33_691_776
    assert list(found["weight_bytes"]) == ["fp32", "fp16", "int8", "int4"]
    memory = found["memory_mb"]
    assert list(memory) == ["generate", "finetune", "finetune_lora"]
    assert memory["generate"] < memory["finetune_lora"] < memory["finetune"]
    assert found["template"] == ALPACA.to_dict() and found["stored_as"] == "int4"


def test_a_model_that_is_not_here_needs_no_network(run: Run, home: Path) -> None:
    found = json.loads(run("info", "--model", "gpt2-xl", "--json", "--offline").stdout)
    assert found["parameters"]["total"] == 1_557_611_200 and found["stored_as"] is None
    assert not home.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("model", ["tiny", "gpt2", "gpt2-xl"])
def test_the_drawing_fits_80_columns(run: Run, model: str, encoding: str) -> None:
    shown = run("info", "--model", model, encoding=encoding).stdout
    assert shown.isascii() == (encoding == "ascii") and "\x1b" not in shown and r"\u" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    config = {"tiny": "8 of 6 384", "gpt2": "12 of 12 768", "gpt2-xl": "48 of 25 1,600"}[model].split()
    assert f"{config[0]} blocks of {config[2]} heads, width {config[3]}" in shown
    assert f"block x {config[0]}" in shown and "wte again (tied)" in shown
    assert not any(line.endswith(" ") for line in shown.splitlines()) and "\n\n\n" not in shown
    [norm] = [line for line in shown.splitlines() if line.startswith("norm")]
    assert "<0.1%" in norm


def test_the_numbers_in_the_drawing_add_up() -> None:
    shape = GPTConfig(3, 2, 128, 1000, 50257, tied=False)
    parts = count_parameters(shape)
    lines = {line.strip(): count for line, count in drawing(shape, parts, ascii_only=True) if count is not None}
    assert all(line.isascii() for line in lines)
    blocks = next(count for line, count in lines.items() if "all blocks" in line)
    inside = sum(
        count for line, count in lines.items() if line.startswith("| ") and "wte" not in line and "wpe" not in line
    )
    assert blocks == 3 * inside
    assert parts.total == sum(lines.values()) - inside


def test_a_file_of_a_training_says_where_it_is_from(run: Run, tmp_path: Path) -> None:
    provenance = {
        "settings": {"model": "tiny", "data": "quiz\x1b[31m.csv", "lora": {"rank": 4}},
        "data": {"turns": 3},
        "step": 12,
        "losses": {"train": 1.5, "val": None},
    }
    model = GPT(GPTConfig(1, 1, 64, 64))
    save_checkpoint(model, tmp_path / "a.pt", template=ALPACA.to_dict(), provenance=provenance)
    shown = run("info", "--ckpt", str(tmp_path / "a.pt")).stdout
    assert r"trained from tiny on quiz\x1b[31m.csv, with LoRA" in shown and "12 steps, train loss 1.500" in shown
    assert "prompt template: alpaca; it learned conversations" in shown
    found = json.loads(run("info", "--ckpt", str(tmp_path / "a.pt"), "--json").stdout)
    assert found["provenance"] == provenance


@pytest.mark.parametrize("provenance", [{"settings": [], "losses": 3, "step": "x"}, {"settings": {"data": {}}}])
def test_a_strange_provenance_is_shown_as_far_as_it_is_known(run: Run, tmp_path: Path, provenance: dict) -> None:
    save_checkpoint(GPT(GPTConfig(1, 1, 64, 64)), tmp_path / "a.pt", provenance=provenance)
    done = run("info", "--ckpt", str(tmp_path / "a.pt"))
    assert done.returncode == 0 and "stored as float32" in done.stdout


def test_an_adapter_and_its_base(run: Run, tmp_path: Path) -> None:
    model = GPT(GPTConfig(1, 1, 64, 64, 300))
    base = models.save_hub_directory(model, tmp_path / "base")
    add_lora(model, LoRAConfig(rank=2))
    save_adapter(tmp_path / "lora", lora_state(model), LoRAConfig(rank=2), base=str(base))
    shown = run("info", "--ckpt", str(tmp_path / "lora")).stdout
    assert "2,048" in shown and "of rank 2" in shown and "LoRA adapter for" in shown
    shutil.rmtree(base)
    done = run("info", "--ckpt", str(tmp_path / "lora"))
    assert done.returncode == 4 and "name it as --model" in done.stderr


def test_a_gguf_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    assert run("export", "--model", "tiny", "--format", "gguf", "--dtype", "q8_0", "--out", str(file)).returncode == 0
    found = json.loads(run("info", "--ckpt", str(file), "--json").stdout)
    assert found["parameters"]["total"] == 33_691_776 and found["stored_as"]


def test_the_speed_is_measured_if_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    base = models.save_hub_directory(models.small_model(GPTConfig(1, 1, 64, 32, 300)), tmp_path / "base")
    found = json.loads(run("info", "--model", str(base), "--bench", "--json").stdout)
    assert found["speed"]["decode_tok_s"] > 0
    assert json.loads(run("info", "--model", str(base), "--json").stdout)["speed"] is None


def test_what_does_not_fit_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_info, "free_memory", lambda device: 10**9)
    shown = run("info", "--model", "gpt2-xl").stdout
    assert "of 1.0 GB free here" in shown and "does not fit" in shown
    assert "does not fit" not in run("info", "--model", "tiny").stdout.split("finetune")[0]


def test_the_page_of_a_small_terminal_is_not_folded() -> None:
    shown = screen("info", "--model", "gpt2", NO_COLOR="1")
    assert max(map(len, shown.splitlines())) <= 80


def test_a_narrow_terminal_keeps_all_numbers() -> None:
    shown = screen("info", "--model", "gpt2-xl", COLUMNS="40", NO_COLOR="1")
    tables = shown.split("\n\n", 1)[1]
    assert "…" not in shown and "┌" not in shown
    assert max(map(len, tables[: tables.index("not on disk")].splitlines())) <= 40
    for number in ("80,411,200", "GFLOP", "307,200 bytes", "6.2 GB"):
        assert number in shown


def test_bench_needs_a_model(run: Run) -> None:
    done = run("info", "--bench")
    assert done.returncode == 2 and "name it with --model or --ckpt" in done.stderr
    done = run("info", "tiny")
    assert done.returncode == 2 and "(name a model with --model, or see `gpt2 info --help`)" in done.stderr
