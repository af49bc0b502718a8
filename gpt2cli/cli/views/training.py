"""Shows the events of a training run: for people on stderr, for programs as lines of JSON on stdout."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.describe import describe_end, describe_start, duration, shortened
from gpt2cli.cli.terminal import Console, visible, visible_line
from gpt2cli.cli.views.progress import LiveDisplay
from gpt2cli.counted import counted
from gpt2cli.errors import ResourceError
from gpt2cli.training.events import Evaluated, Event, Finished, Sampled, Saved, Started, Step

NARROWEST_BAR, WIDEST_BAR = 8, 40
"""Columns of the bar."""
LINES_OF_AN_ANSWER = 6
"""Lines of a sampled answer that are shown."""


class LiveView(LiveDisplay):
    """Shows a run's events: a line with the current figures on a terminal, and lines above it.

    verbose  whether to show each checkpoint
    """

    def __init__(self, console: Console, verbose: bool = False) -> None:
        self._verbose = verbose
        self._plain_text = False
        self._line = TrainingLine()
        super().__init__(console, self._line)

    def note(self, text: str) -> None:
        """Print a remark above the live line."""
        if not self._console.quiet:
            self._say(visible_line(text), "dim")

    def handle(self, event: Event) -> None:
        """Show one event."""
        if self._console.quiet:
            return
        self._line.handle(event)
        match event:
            case Started():
                self._plain_text = event.plain_text
                for line in describe_start(event):
                    self.note(line)
                self.show()
            case Step():
                self.show(", ".join(self._line.words()))
            case Evaluated():
                best = " (best so far)" if self._console.err.options.ascii_only else " ↓ best so far"
                better = best if event.best and event.step else ""
                at = f"step {event.step}" if event.step else "before training"
                self._say(f"{at}: validation loss {event.val_loss:.3f}{better}")
            case Sampled():
                self._show_answers(event)
            case Saved() if self._verbose:
                self.note(f"step {event.step}: saved {event.path}")
            case Finished():
                self.close()
                for line in describe_end(event):
                    self._say(line)

    def _say(self, text: str, style: str = "", indent: int = 0) -> None:
        line = Text(visible(text), style)
        if self._console.animates:
            self._console.err.print(Padding(line, (0, 0, 0, indent), expand=False))
        else:  # never wrapped
            self._console.err.print(line, soft_wrap=True)

    def _show_answers(self, event: Sampled) -> None:
        for each in event.answers:
            expected = "" if each.expected is None else shortened(each.expected, 120)
            right = each.expected is not None and each.answer.split() == each.expected.split()
            if not self._console.animates:
                verb = "is continued with" if self._plain_text else "is answered"
                said = f"step {event.step}: {shortened(each.prompt, 60)!r} {verb} {shortened(each.answer, 120)!r}"
                self.note(said + (", as expected" if right else f", expected {expected!r}" if expected else ""))
                continue
            self.note(f"step {event.step}: {shortened(each.prompt, 100)}")
            lines = each.answer.strip().splitlines() or ["(nothing)"]
            for line in lines[:LINES_OF_AN_ANSWER]:
                self._say(line, indent=2)
            if len(lines) > LINES_OF_AN_ANSWER:
                self._say(f"({counted(len(lines) - LINES_OF_AN_ANSWER, 'more line')})", "dim", indent=2)
            if expected:
                self._say("(as expected)" if right else f"expected: {expected}", "dim", indent=2)


class TrainingLine:
    """A bar and the current figures of a run, as many as fit into one line."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._step: Step | None = None
        self._evaluated: Evaluated | None = None
        self._seconds = 0.0  # of the steps of this process

    def handle(self, event: Event) -> None:
        match event:
            case Started():
                self._started = event
            case Step():
                self._step = event
                self._seconds += event.tokens / event.tok_s
            case Evaluated():
                self._evaluated = event

    def words(self, arrow: str = "") -> Iterator[str]:
        """Yields the figures, the most important one first."""
        if not self._started:
            return
        total = str(self._started.total_steps)
        yield f"step {(self._step or self._started).step:>{len(total)}}/{total}"
        if not self._step:
            return
        yield f"loss {self._step.smoothed_loss:.3f}"
        if left := self._seconds_left():
            yield f"{duration(left)} left"
        if self._evaluated:
            yield f"val {self._evaluated.val_loss:.3f}{arrow if self._evaluated.best and self._evaluated.step else ''}"
        yield f"{self._step.tok_s:,.0f} tok/s"
        yield f"epoch {self._step.epoch:.2f}/{self._started.epochs}"
        yield f"lr {self._step.lr:.1e}"

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> Iterator[Table]:
        if not self._started:
            return
        # the last columns stay empty: some terminals wrap after the last one, and Ctrl-C is echoed as ^C
        room = options.max_width - 3 - NARROWEST_BAR
        shown: list[str] = []
        for word in self.words("" if options.ascii_only else "↓"):
            room -= len(word) + 2
            if room < 0:
                break
            shown.append(word)
        width = min(NARROWEST_BAR + max(room, 0), WIDEST_BAR)
        bar = ProgressBar(self._started.total_steps, (self._step or self._started).step, width=width)
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(bar, *(Text(word, no_wrap=True) for word in shown))
        yield line

    def _seconds_left(self) -> float:
        """The estimate uses the mean time of a step in this process. It leaves out evaluations, samples and saves."""
        if not self._started or not self._step or self._step.step <= self._started.step:
            return 0.0
        return self._seconds / (self._step.step - self._started.step) * (self._started.total_steps - self._step.step)


class JsonEvents:
    """Prints each event as one line of JSON on stdout: its kind and its fields.

    If printing fails, for example because the reader closed the pipe, no further events are printed. The run continues.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._failed: OSError | None = None

    def handle(self, event: Event) -> None:
        self.write(event_as_json(event))

    def write(self, fields: Mapping[str, Any]) -> None:
        """Print one object."""
        if self._failed is None:
            try:
                self._console.json(fields)
            except OSError as error:
                self._failed = error

    def raise_failed(self) -> None:
        """Raise BrokenPipeError or ResourceError if events could not be printed."""
        if isinstance(self._failed, BrokenPipeError):
            raise self._failed
        if self._failed is not None:
            reason = self._failed.strerror or self._failed
            raise ResourceError(f"cannot write to stdout ({reason}): the run itself is complete, see its metrics.jsonl")


def event_as_json(event: Event) -> dict[str, Any]:
    """The object for `--json`: the event's kind and its fields."""
    fields = asdict(event)
    kind = "eval" if isinstance(event, Evaluated) else type(event).__name__.lower()  # as in metrics.jsonl
    if isinstance(event, Saved):
        fields["path"] = str(event.path)
    return {"kind": kind} | fields
