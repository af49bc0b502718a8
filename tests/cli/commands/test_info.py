"""`gpt2 info`: what is on disk, and how to delete it."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from gpt2cli import paths
from gpt2cli.cli.stored_files import delete_command, places
from gpt2cli.inference.cpu import compiling
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
