"""What reaches a terminal, and how errors and notes become one line."""

import io
import sys

import pytest

from gpt2cli.cli.terminal import LONGEST_LINE, Console, report_error, visible, visible_line

BIDIRECTIONAL = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C]
INVISIBLE = [0x200B, 0x2028, 0x2029, 0x2060, 0x2064, 0x206F, 0xFEFF, 0xFFF9, 0x180E]


@pytest.mark.parametrize("code", [*BIDIRECTIONAL, *INVISIBLE], ids=hex)
def test_marks_that_turn_or_hide_a_text_are_visible(code):
    assert visible(f"a{chr(code)}b") == f"a\\u{code:04x}b"


def test_a_second_text_in_tags_is_visible():
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "do")
    assert visible(f"a{hidden}b") == r"a\U000e0064\U000e006fb"


def test_other_scripts_and_joiners_stay_as_they_are():
    text = "שלום العربية 日本語 👩\u200d👩 ❤\ufe0f م\u200cم e\u0301 \u00a0\n\t"
    assert visible(text) == text
    assert visible("\x1b[31m\x9b\x7f") == r"\x1b[31m\x9b\x7f"


def test_a_line_is_one_line():
    assert visible_line("a\nb\tc\x1b") == r"a\nb\tc\x1b"


def test_the_name_of_a_file_is_told_as_it_is(capsys):
    report_error("two\n lines  and\tmore.pt is not there: give another\n")
    Console().note("wrote two\nlines.pt")
    assert capsys.readouterr().err.splitlines() == [
        r"error: two\n lines  and\tmore.pt is not there: give another",
        r"wrote two\nlines.pt",
    ]


@pytest.mark.parametrize("what", ["x", "\n", "\x1b", "\u202e", "é", "\udc80"])
def test_errors_and_notes_of_any_length_are_one_short_line(what, monkeypatch):
    for show in (report_error, lambda text: Console().note(text)):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        show("begins with this: " + what * 5_000_000 + ": and ends with advice")
        shown = stream.getvalue()
        assert shown.count("\n") == 1
        assert "begins with this" in shown and shown.endswith("ends with advice\n")
        assert len(shown) <= LONGEST_LINE + 10


def test_an_error_of_stdout_says_that_it_is_stdout(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    for write in (lambda console: console.write("a"), lambda console: console.json({})):
        with pytest.raises(OSError, match="standard output"):
            write(Console())
