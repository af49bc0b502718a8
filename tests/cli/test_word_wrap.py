"""Line breaks between words: what stands on the screen, and that nothing of the text is lost or changed."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from gpt2cli.cli.prose import Prose
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.word_wrap import WordWrap
from tests.runner import Pipe

LETTERS = "aé .,\t\n　字字ー。「」🌍\u200d\ufe0fe\u0301\u00a0ก"
texts = st.text(LETTERS, max_size=60)
words = st.lists(st.text("abc", min_size=1, max_size=9), max_size=20).map(" ".join)


def wrapped(*pieces: str, width: int) -> str:
    wrap = WordWrap(lambda: width)
    return "".join(map(wrap.feed, pieces)) + wrap.flush()


def without_inserted(shown: str, text: str) -> str:
    """`shown` without those line breaks that `text` does not have at their place."""
    rest = iter(shown)
    kept = []
    for character in text:
        found = next(rest)
        while found != character and found == "\n":
            found = next(rest)
        kept.append(found)
    return "".join(kept) + "".join(rest)


def test_words_move_to_the_next_line() -> None:
    assert wrapped("the quick brown fox jumps", width=11) == "the quick \nbrown fox \njumps"
    assert wrapped("the quick brown fox jumps", width=10) == "the quick \nbrown fox \njumps"  # the space ends the line
    assert wrapped("one two\nthree", width=80) == "one two\nthree"
    assert wrapped("so: anextraordinarilylongword ends", width=10) == "so: \nanextraordinarilylongword \nends"
    assert wrapped("a b\tc\td", width=12) == "a b\tc\t\nd"
    assert wrapped("gr\u00fc\u00dfe\u00a0dich sehr", width=12) == "gr\u00fc\u00dfe\u00a0dich \nsehr"


def test_lines_break_beside_wide_characters_but_not_before_a_full_stop() -> None:
    assert wrapped("日本語日本語", width=9) == "日本語日\n本語"
    assert wrapped("日本語日。本", width=9) == "日本語\n日。本"
    assert wrapped("日本語「日本」", width=8) == "日本語\n「日\n本」"
    assert wrapped("ab cd日本", width=7) == "ab cd\n日本"
    assert wrapped("xx 👩\u200d👩 y", width=6) == "xx \n👩\u200d👩 \ny"


@given(texts, st.integers(2, 20))
def test_without_the_inserted_breaks_it_is_the_text(text: str, width: int) -> None:
    shown = wrapped(text, width=width)
    assert without_inserted(shown, text) == text
    assert shown.replace("\n", "") == text.replace("\n", "")


@given(st.lists(texts, max_size=8), st.integers(2, 20))
def test_it_does_not_matter_where_pieces_end(pieces: list[str], width: int) -> None:
    assert wrapped(*pieces, width=width) == wrapped("".join(pieces), width=width)


@given(words, st.integers(11, 30))
def test_words_stay_whole_lines_fit_and_none_is_broken_too_early(text: str, width: int) -> None:
    lines = wrapped(text, width=width).split("\n")
    assert [word for line in lines for word in line.split()] == text.split()
    assert all(cell_len(line) <= width for line in lines)
    for line, after in pairwise(lines):
        assert cell_len(line + after.split(" ")[0]) > width - 1


@given(st.lists(words, max_size=6), st.lists(st.integers(1, 30), min_size=7, max_size=7))
def test_a_window_that_changes_its_size_loses_nothing(pieces: list[str], widths: list[int]) -> None:
    sizes = iter(widths)
    wrap = WordWrap(lambda: next(sizes))
    assert ("".join(map(wrap.feed, pieces)) + wrap.flush()).replace("\n", "") == "".join(pieces)


def test_the_width_is_read_as_it_goes() -> None:
    widths = iter([20, 10, 10, 20])
    wrap = WordWrap(lambda: next(widths))
    pieces = [wrap.feed(piece) for piece in ("one two ", "three ", "four ", "five ")]
    assert pieces == ["one two ", "\nthree ", "\nfour ", "five "]


def prose(stdout: Pipe) -> Prose:
    console = Console()
    console._out.file = console._stdout = stdout
    console._out.width = 20
    return Prose(console)


def test_a_pipe_gets_the_text_unchanged_and_at_once() -> None:
    stdout = Pipe()
    with prose(stdout) as writer:
        writer.write("a prompt of more than twenty columns, ", style="bold")
        writer.write("and \x1b a te")
        assert stdout.written() == "a prompt of more than twenty columns, and \x1b a te"
        writer.write("xt")


def test_a_terminal_gets_whole_words_and_the_last_one_at_the_end() -> None:
    stdout = Pipe(terminal=True)
    with prose(stdout) as writer:
        writer.write("Once upon a ti", style="bold")
        assert stdout.written().endswith("ti")
        writer.write("me there was\x1b an")
        assert stdout.written() == "Once upon a time \nthere was\\x1b "
        writer.write("oldowl")
    assert stdout.written() == "Once upon a time \nthere was\\x1b \nanoldowl"
