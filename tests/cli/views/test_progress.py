"""Progress on a terminal, in a pipe, and with --quiet."""

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console as RichConsole

from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views import progress
from gpt2cli.cli.views.bench import showing_runs
from gpt2cli.cli.views.downloads import showing_downloads
from gpt2cli.cli.views.evaluation import EvaluationProgress
from gpt2cli.cli.views.progress import ProgressBars
from gpt2cli.evaluation.engine import Advanced
from gpt2cli.progress import Note, Received

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
        "a.safetensors: 9 bytes of 24 bytes (37 %)",
        "a.safetensors: 19 bytes of 24 bytes (79 %)",
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
