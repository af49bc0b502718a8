"""Untrusted values never make a message long, or slow to build."""

from io import BytesIO
from pathlib import Path

import pytest

from gpt2cli import untrusted
from gpt2cli.untrusted import is_directory, is_file, missing, parse_json, read_at_most, shown, shown_name, shown_reason


@pytest.mark.parametrize("depth", [1, 30, 200])
def test_values_that_hold_themselves_are_named_by_their_type(depth: int) -> None:
    value: list[object] = []
    for _ in range(depth):
        value = [value, value]
    assert shown(value) == "a value of type list"


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000_000, "\x1b[31m\n" * 1000, 10**5000, -(10**100), b"x" * 1000, {}],
    ids=lambda value: type(value).__name__,
)
def test_what_is_shown_is_short_and_printable(value: object) -> None:
    assert len(shown(value)) < 400
    assert shown(value).isprintable()


def test_small_values_are_shown_as_they_are() -> None:
    assert [shown(value) for value in ("gpt2", 12, 0.5, True, None)] == ["'gpt2'", "12", "0.5", "True", "None"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "{", b"\xff", ""], ids=range(6))
def test_bad_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udcff", "a/" * 5000], ids=range(4))
def test_impossible_names_are_not_there(name: str) -> None:
    assert not is_file(Path(name))
    assert not is_directory(Path(name))


def test_an_ordinary_name_is_shown_as_it_is_and_any_other_as_a_text():
    assert shown_name("transformer.h.0.attn.c_attn.weight") == "transformer.h.0.attn.c_attn.weight"
    assert shown_name("a\nb") == r"'a\nb'"
    assert len(shown_name("x" * 10**6)) < 100


def test_a_reason_is_shown_short_and_on_one_line():
    assert shown_reason(ValueError("a\nb\x1b[2J")) == "a b [2J"
    assert shown_reason(EOFError()) == "EOFError"
    assert len(shown_reason(ValueError("x" * 10**6))) < 300


def test_what_is_there_but_no_file_is_told_apart_from_what_is_missing(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert missing(tmp_path) == missing(tmp_path / "loop") == "not an ordinary file"
    assert missing(tmp_path / "x") == missing(tmp_path / "a\0b") == missing(tmp_path / ("x" * 300)) == "not there"


def test_lines_without_an_end_and_lines_that_are_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "LONGEST_LINE", 4)
    content = b"one\n\ntoo long\nlong\nlon\nseven78\nend"
    assert [*untrusted.whole_lines(BytesIO(content))] == [b"one\n", b"\n", b"lon\n"]


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_at_most(tmp_path / "a", 5) == b"12345"
    assert read_at_most(tmp_path / "a", 4) is None
