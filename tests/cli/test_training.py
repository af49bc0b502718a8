"""What finetune says of its data before it trains."""

from pathlib import Path

import pytest

from gpt2cli.cli.console import Console
from gpt2cli.cli.training import note_left_out
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.load import load_data


def test_what_of_the_data_is_not_used_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time. " * 9)
    (tmp_path / "b.md").write_text("no")
    note_left_out(load_data(tmp_path, TrainConfig(), DataConfig(), 16), Console())
    assert "left out 1 entry that is not a visible .txt file, 'b.md'" in capsys.readouterr().err.replace("\n", " ")
