"""The picture of a run: drawn for any number of points, and never in the run's way."""

import builtins
import json
from pathlib import Path

import pytest

from gpt2cli.training.plots import Losses, draw, plot_losses, read_losses


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_it_draws_any_number_of_points(tmp_path: Path, count: int) -> None:
    steps = list(range(1, count + 1))
    val = steps[::10]
    training = [2 + 1 / s for s in steps]
    losses = Losses(steps, training, [10] * count, [100 * s for s in steps], val, [2.5] * len(val), "a $ on _")
    draw(losses, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["loss.png"]


def test_it_reads_the_metrics_of_a_run(tmp_path: Path) -> None:
    lines = [
        {"kind": "eval", "step": 0, "tokens_seen": 0, "val_loss": 4.0},
        {"kind": "step", "step": 1, "loss": 3.0, "tokens": 10, "targets": 4, "smoothed_loss": 3.0},
        {"kind": "step", "step": 2, "loss": 2.0, "tokens": 5, "targets": 3, "smoothed_loss": 2.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_losses(tmp_path / "metrics.jsonl") == Losses([1, 2], [3.0, 2.0], [4, 3], [10, 15], [0], [4.0])
    assert plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png") is None
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert read_losses(tmp_path / "absent.jsonl") == Losses()


def test_without_matplotlib_there_is_a_note_and_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    note = plot_losses(tmp_path / "absent.jsonl", tmp_path / "loss.png")
    assert note and "matplotlib" in note and not list(tmp_path.iterdir())


def test_a_directory_that_is_gone_and_a_torn_file_give_a_note(tmp_path: Path) -> None:
    assert "loss.png" in (plot_losses(tmp_path / "absent.jsonl", tmp_path / "gone" / "loss.png") or "")
    (tmp_path / "metrics.jsonl").write_text('{"kind": "st')
    assert plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
