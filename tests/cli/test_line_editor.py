"""What was typed before, kept in a file."""

import stat
from pathlib import Path

from gpt2cli.cli.line_editor import PrivateHistory


def test_only_the_owner_can_read_the_history_whoever_made_the_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "history"
    PrivateHistory(file).store_string("one\ntwo")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    again = PrivateHistory(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again.store_string("broken \udcff")
    assert list(again.load_history_strings()) == ["broken ?", "one\ntwo"]


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "history", tmp_path):
        history = PrivateHistory(place)
        history.store_string("one")
        assert list(history.load_history_strings()) == []
