"""Progress on a terminal, in a pipe, and with --quiet."""

import io
import re
import time
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console as RichConsole

from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views import progress, spinner
from gpt2cli.cli.views.bench import showing_runs
from gpt2cli.cli.views.downloads import showing_downloads
from gpt2cli.cli.views.evaluation import EvaluationProgress
from gpt2cli.cli.views.progress import ProgressBars
from gpt2cli.cli.views.spinner import waiting_for, working
from gpt2cli.evaluation.engine import Advanced
from gpt2cli.progress import Note, Received
from tests.runner import Pipe, wait_until

HOSTILE = "[bold]a\x1b]52;c;AAAA\x07"


class Screen(Console):
    """A console whose stderr is a terminal of this width, or a pipe if `width` is 0."""

    def __init__(self, width: int = 100, quiet: bool = False) -> None:
        super().__init__(quiet)
        self.stream = io.StringIO()
        self.err = RichConsole(file=self.stream, width=width or 20, force_terminal=width > 0, color_system=None)
        self._width = width

    @property
    def animates(self) -> bool:
        return self._width > 0

    @property
    def lines(self) -> list[str]:
        """What stands in each line at the end, for pictures of one line."""
        return [re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", line) for line in self.stream.getvalue().split("\n")]


def runs(screen: Screen) -> None:
    with showing_runs(screen, "fp32", 3) as advance:
        advance()


def download(screen: Screen) -> None:
    with showing_downloads(screen) as received:
        received(Received("a.safetensors", 50, 100))


def evaluation(screen: Screen) -> None:
    with EvaluationProgress(screen) as view:
        for done in (0, 5):
            view.advance(Advanced("gpt2", "scoring", done, 10))


VIEWS = [runs, download, evaluation]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stops the time. The function lets seconds pass."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


@pytest.mark.parametrize("show", VIEWS)
@pytest.mark.parametrize("width", [100, 40, 12])
def test_bars_fit_on_a_terminal_and_give_the_cursor_back(show: Callable[[Screen], None], width: int) -> None:
    screen = Screen(width)
    show(screen)
    shown = screen.stream.getvalue()
    assert shown.count("\x1b[?25l") == 1 and shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert all(len(piece) <= width for line in screen.lines for piece in line.split("\r"))


@pytest.mark.parametrize("show", VIEWS)
def test_quiet_shows_nothing(show: Callable[[Screen], None]) -> None:
    screen = Screen(quiet=True)
    show(screen)
    assert screen.stream.getvalue() == ""


def test_only_the_bar_of_a_download_stays() -> None:
    shown = {}
    for show in VIEWS:
        screen = Screen()
        show(screen)
        shown[show] = screen.stream.getvalue()
    erased = "\x1b[1A\x1b[2K"
    assert [shown[show].endswith(erased) for show in VIEWS] == [True, False, True]
    assert "50/100 bytes" in shown[download] and "50%" in shown[evaluation] and "measuring fp32" in shown[runs]


def test_an_interrupt_removes_the_bars() -> None:
    screen = Screen()
    with pytest.raises(KeyboardInterrupt), ProgressBars(screen) as bars:
        bars.update("working", 1, 2)
        raise KeyboardInterrupt
    assert "\x1b[?25h" in screen.stream.getvalue()


def test_hostile_descriptions_reach_no_terminal_raw() -> None:
    screen = Screen()
    with ProgressBars(screen) as bars:
        bars.update(HOSTILE, 1, 2)
    assert r"[bold]a\x1b]52;c;AAAA\x07" in screen.stream.getvalue()


def test_without_a_terminal_a_line_appears_every_ten_seconds(clock: Callable[[float], None]) -> None:
    screen = Screen(width=0)
    with ProgressBars(screen) as bars:
        for done in range(25):
            clock(1)
            bars.update("working", done, 24, line=f"{done} of 24")
            bars.update("other work", done, 24)
    assert screen.stream.getvalue().splitlines() == ["9 of 24", "19 of 24"]
    assert progress.SECONDS_BETWEEN_LINES == 10


def test_models_with_the_same_shortened_name_have_a_bar_each() -> None:
    screen = Screen()
    with EvaluationProgress(screen) as view:
        for directory in ("one", "two"):
            view.advance(Advanced(f"/runs/{directory}/a-checkpoint-with-a-long-name.pt", "scoring", 0, 10))
    with screen.err.capture() as capture:
        screen.err.print(view._picture)
    assert capture.get().count("scoring ...") == 2
    assert "interrupted" not in screen.stream.getvalue()


def test_an_evaluation_that_continues_says_so_once(clock: Callable[[float], None]) -> None:
    screen = Screen(width=0)
    with EvaluationProgress(screen) as view:
        for done in (3, 4):
            view.advance(Advanced("a.pt", "answering", done, 10, 3))
            clock(10)
        view.advance(Advanced("a.pt", "answering", 5, 10, 3))
    assert screen.stream.getvalue().splitlines() == [
        "a.pt: continuing an interrupted run",
        "a.pt: 4 of 10 answers",
        "a.pt: 5 of 10 answers",
    ]


def test_lines_of_a_download_are_few(capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]) -> None:
    with showing_downloads(Console()) as received:
        for done in range(25):
            clock(1)
            received(Received("a.safetensors", done, 24))
        received(Note("a note"))
        received(Received("b.safetensors", 90, 100))  # where an earlier run left it
        received(Received("b.safetensors", 100, 100))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "a.safetensors: 10 bytes of 24 bytes (41 %)",
        "a.safetensors: 20 bytes of 24 bytes (83 %)",
        "a note",
        "downloaded 2 files, 34 bytes, in 25.0 s",
    ]


def test_nothing_is_shown_if_quiet_or_if_nothing_happens(capsys: pytest.CaptureFixture[str]) -> None:
    with showing_downloads(Console(quiet=True)) as received:
        received(Received("a.safetensors", 1, 2))
        received(Note("a note"))
    with showing_downloads(Console()):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spinners appear without delay, and turn fast."""
    monkeypatch.setattr(spinner, "SECONDS_BEFORE_SPINNER", 0)
    monkeypatch.setattr(spinner, "FRAMES_PER_SECOND", 1000)


def on_screen(stream: io.StringIO) -> list[str]:
    """The lines that a terminal shows in the end, for output that only erases the line in which the cursor is."""
    lines, column = [""], 0
    for piece in re.split(r"(\r|\n|\x1b\[K)", re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())):
        if piece == "\n":
            lines.append("")
        elif piece == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif piece != "\r":
            lines[-1] = lines[-1][:column] + piece + lines[-1][column + len(piece) :]
        column = column + len(piece) if piece.isprintable() and piece else 0 if piece in "\r\n" else column
    return lines


@pytest.mark.usefixtures("at_once")
def test_a_spinner_shows_its_work_and_is_gone_at_the_end() -> None:
    screen = Screen(30)
    with working(screen, f"loading {HOSTILE} with a long name"):
        wait_until(lambda: screen.stream.getvalue().count("loading") > 3)
        shown = r"[⠋-⠿] loading \[bold\]a\\x1b\]52;.*"
        wait_until(lambda: re.fullmatch(shown, on_screen(screen.stream)[-1]))  # between two turns, the line is empty
        screen.note("a note")
        [last] = wait_until(lambda: re.findall(shown, on_screen(screen.stream)[-1]))
        assert on_screen(screen.stream)[0] == "a note"
        assert len(last) == 28  # never the last column
    assert on_screen(screen.stream) == ["a note", ""]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("screen", [Screen(quiet=True), Screen(width=0)], ids=["quiet", "pipe"])
def test_a_spinner_is_for_terminals(screen: Screen) -> None:
    with working(screen, "loading"):
        time.sleep(0.05)
    assert screen.stream.getvalue() == ""


def test_work_of_less_than_a_second_shows_nothing() -> None:
    screen = Screen()
    with working(screen, "loading"):
        pass
    assert screen.stream.getvalue() == "" and spinner.SECONDS_BEFORE_SPINNER == 1


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_and_ctrl_c_end_a_spinner(error: type[BaseException]) -> None:
    screen = Screen()
    with pytest.raises(error), working(screen, "loading"):
        wait_until(lambda: "loading" in screen.stream.getvalue())
        raise error
    before = screen.stream.getvalue()
    time.sleep(0.05)
    assert on_screen(screen.stream) == [""] and screen.stream.getvalue() == before


@pytest.mark.usefixtures("at_once")
def test_a_spinner_gives_way_to_bars_and_to_inner_spinners() -> None:
    screen = Screen()
    with working(screen, "outer"):
        wait_until(lambda: "outer" in screen.stream.getvalue())
        with ProgressBars(screen) as bars:
            bars.update("downloading", 1, 2)
            begun = len(screen.stream.getvalue())
            time.sleep(0.05)
            assert "outer" not in screen.stream.getvalue()[begun:]
        with working(screen, "inner"):
            wait_until(lambda: "inner" in screen.stream.getvalue())
            assert "outer" not in screen.stream.getvalue()[begun:]
        wait_until(lambda: "outer" in screen.stream.getvalue()[begun:])


@pytest.mark.usefixtures("at_once")
def test_a_spinner_never_stands_in_a_line_of_the_result() -> None:
    screen = Screen()
    stdout = Pipe(terminal=True)
    screen._stdout = screen._out.file = stdout
    with working(screen, "loading"):
        screen.write("Once upon")
        time.sleep(0.05)
        assert screen.stream.getvalue() == "" or screen.stream.getvalue().endswith("\x1b[K")
        screen.write(" a time\n")
        wait_until(lambda: "loading" in on_screen(screen.stream)[-1])
    assert stdout.written() == "Once upon a time\n"


@pytest.mark.usefixtures("at_once")
def test_waiting_ends_with_the_first_item_and_loses_none() -> None:
    screen = Screen()

    def items() -> Iterator[int]:
        wait_until(lambda: "reading" in screen.stream.getvalue())
        for item in range(3):
            yield item
            assert on_screen(screen.stream) == [""]

    assert list(waiting_for(items(), screen, "reading")) == [0, 1, 2]
    assert list(waiting_for([], screen, "reading")) == []
