"""What was typed before, kept in a file; and what is typed now, keys and what terminals send."""

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from gpt2cli.cli import line_editor
from gpt2cli.cli.line_editor import LineEditor, PrivateHistory

SEQUENCES = {
    "color": "\x1b[31m",
    "mouse": "\x1b[<0;1M",
    "whole mouse": "\x1b[<35;10;20M",
    "old mouse": "\x1b[M !!",
    "mode": "\x1b[?25h",
    "attributes": "\x1b[>0;276;0c",
    "colons": "\x1b[38:5:1m",
    "unknown key": "\x1b[97;5u",
    "cursor": "\x1b[12;3R",
    "far cursor": "\x1b[999999999;1R",
    "focus": "\x1b[I",
    "title": "\x1b]0;a title\x07",
    "link": "\x1b]8;;http://localhost\x1b\\",
    "settings": "\x1bP1$r0m\x1b\\",
    "keypad": "\x1bOM",
}
PASTE = "\x1b[200~{}\x1b[201~"


@pytest.fixture(scope="module")
def editing(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What the editor gives for these keys, before Enter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2CLI_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(line_editor, "create_output", lambda stdout: DummyOutput())

        def typed(keys: str) -> str:
            with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
                editor = LineEditor({"/read": "path"})
                pipe.send_text(keys + "\r")
                return editor.read()

        yield typed


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
def test_escape_sequences_that_are_typed_or_pasted_are_ignored(editing, sequence):
    assert editing(f"one {sequence}two{sequence}") == "one two"
    assert editing(PASTE.format(f"one {sequence}\r\ntwo")) == "one \ntwo"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([*SEQUENCES.values(), "word", " ", "é"]), max_size=6))
def test_the_text_between_sequences_stays(editing, parts):
    assert editing("".join(parts)) == "".join(part for part in parts if "\x1b" not in part)


def test_alt_and_a_bracket_take_at_most_one_letter_along(editing):
    assert editing("\x1b]hello") == "hello"
    assert editing("\x1b[hello") == "ello"
    assert editing("\x1bPhello") == "hello"


def test_a_name_that_no_file_has_completes_to_nothing(editing):
    assert editing("/read " + "x" * 300 + "/\t") == "/read " + "x" * 300 + "/"


def test_a_fault_of_the_editor_comes_out_and_the_line_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2CLI_HOME", str(tmp_path))
    monkeypatch.setattr(line_editor, "create_output", lambda stdout: DummyOutput())
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        editor = LineEditor({})

        @editor._session.key_bindings.add("f12")
        def fail(event):
            raise ValueError("a fault")

        pipe.send_text("typed\x1b[24~")
        with pytest.raises(ValueError, match="a fault"):
            editor.read()
        pipe.send_text(" on\r")
        assert editor.read() == "typed on"


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
