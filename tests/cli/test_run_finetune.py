"""The notes and errors of a training run."""

from pathlib import Path

import pytest
import torch

from gpt2cli.cli.run_finetune import advising_on_memory, note_left_out
from gpt2cli.cli.terminal import Console
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.open_data import load_data
from gpt2cli.errors import ResourceError


def test_what_of_the_data_is_not_used_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time. " * 9)
    (tmp_path / "b.md").write_text("no")
    note_left_out(load_data(tmp_path, TrainConfig(), DataConfig(), 16), Console())
    assert "left out 1 entry that is not a visible .txt file, 'b.md'" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_comes_with_advice_whenever_it_is_noticed(error):
    with (
        pytest.raises(ResourceError, match="cpu is out of memory: try a smaller --batch-size"),
        advising_on_memory("cpu"),
    ):
        raise error


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="shapes"), advising_on_memory("cpu"):
        raise RuntimeError("shapes")
