"""What a training run looks like: on terminals of several widths, in a pipe, quiet, and as JSON."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from gpt2cli.cli.describe import duration, shortened
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.training import JsonEvents, LiveView, TrainingLine
from gpt2cli.counted import counted
from gpt2cli.errors import ResourceError
from gpt2cli.training.events import Answer, Evaluated, Event, Finished, Sampled, Saved, Started, Step

HOSTILE = "Paris [/x] [bold]x \x1b[31mred\x1b]52;c;AAAA\x07 :smile:"
STARTED = Started(
    step=0,
    total_steps=200,
    epochs=3,
    train_examples=900,
    val_examples=100,
    val_used=100,
    plain_text=False,
    samples_from_training=False,
    trainable_parameters=2_359_296,
    parameters=124_439_808,
)
FINISHED = Finished(
    steps=200,
    tokens_seen=24_680,
    train_seconds=3723.2,
    train_tok_s=330.1,
    peak_rss_mb=2101.5,
    final_train_loss=1.92,
    final_train_loss_steps=20,
    final_val_loss=2.10,
    final_val_step=200,
    best_val_loss=2.08,
    best_val_step=150,
    reason="done",
)
ENDED = replace(
    FINISHED,
    steps=27,
    tokens_seen=1,
    train_seconds=0.6,
    final_train_loss=2.67,
    final_train_loss_steps=1,
    best_val_loss=4.73,
    best_val_step=0,
    reason="interrupted",
)
STEP = Step(
    step=1,
    epoch=0.015,
    loss=4.0,
    smoothed_loss=4.0,
    lr=4.2e-5,
    grad_norm=1.2,
    tokens=1234,
    targets=400,
    tok_s=12345.6,
)
EVENTS: list[Event] = [
    STARTED,
    STEP,
    replace(STEP, step=2, epoch=0.03, loss=2.0, smoothed_loss=2.974),
    Evaluated(2, 2468, 2.25, True),
    Sampled(
        2,
        [
            Answer("Name the capital\nof France", HOSTILE + "\n" + "\n".join("23456789"), HOSTILE),
            Answer("Say nothing", "", None),
            Answer("Say a b", "a  b\n", "a b"),
        ],
    ),
    Saved(2, Path("/runs/step-2")),
]


def shown_on(terminal: bool) -> type[Console]:
    """The console of a process whose stderr is a terminal, or is none."""
    return type("Shown", (Console,), {"animates": terminal})


def shown(
    events: list[Event], *, terminal: bool = True, width: int = 100, quiet: bool = False, verbose: bool = False
) -> str:
    """What the view writes to stderr."""
    console = shown_on(terminal)(quiet)
    stream = io.StringIO()
    console.err = RichConsole(
        file=stream, width=width, force_terminal=terminal, highlight=False, emoji=False, markup=False, color_system=None
    )
    with LiveView(console, verbose) as view:
        for event in events:
            view.handle(event)
            if isinstance(event, Saved):
                view.note("wandb: it [went] away")
    return stream.getvalue()


def live_line(events: list[Event], width: int, encoding: str = "utf-8") -> str:
    """The line that shows how far the run is."""
    line = TrainingLine()
    for event in events:
        line.handle(event)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = RichConsole(file=stream, width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(line)
    return capture.get().rstrip("\n")


@pytest.mark.parametrize("width", [200, 120, 80, 50, 30, 12, 5])
def test_the_live_line_fits_and_tells_the_most_important_first(width: int) -> None:
    line = live_line(EVENTS, width)
    assert "\n" not in line and len(line) <= width
    words = ["step   2/200", "loss 2.974", "val 2.250↓", "12,346 tok/s", "epoch 0.03/3", "lr 4.2e-05"]
    wanted = {200: 6, 120: 6, 80: 3, 50: 2, 30: 1}.get(width, 0)
    assert all(word in line for word in words[:wanted])


def test_the_line_is_there_before_the_first_step_and_without_an_event() -> None:
    assert "step   0/200" in live_line([STARTED], 80)
    assert live_line([], 80) == ""
    assert "step 120/200" in live_line(
        [replace(STARTED, step=120)],
        80,
    )


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert live_line(EVENTS, 120, "ascii").isascii()


def test_on_a_terminal_lines_stay_above_the_bar() -> None:
    text = shown([*EVENTS, FINISHED], verbose=True)
    assert "training 2,359,296 of 124,439,808 parameters, with 100 records held out" in text
    assert "step 2: validation loss 2.250 ↓ best so far" in text
    assert "step 2: saved /runs/step-2" in text and "wandb: it [went] away" in text
    assert "step 2: Name the capital of France" in text and "  (nothing)" in text
    assert "  expected: Paris" in text and "  a  b\n" in text and "  (as expected)\n" in text
    assert "(3 more lines)" in text and "  6\n" in text and "  7\n" not in text
    assert "done: 200 steps, 24,680 tokens, 1:02:03 of training (330 tokens/s, 2,102 MB peak memory)" in text
    assert "loss: training 1.920 (mean of the last 20 steps), validation 2.100 (best 2.080 at step 150)" in text


def test_what_the_model_says_reaches_no_terminal_raw() -> None:
    text = shown(EVENTS)
    assert r"Paris [/x] [bold]x \x1b[31mred\x1b]52;c;AAAA\x07 :smile:" in text
    assert "\x1b]52" not in text and "\x1b[31m" not in text and "\x07" not in text


def test_an_interrupted_view_gives_the_cursor_back() -> None:
    console = shown_on(True)()
    stream = io.StringIO()
    console.err = RichConsole(file=stream, force_terminal=True, color_system=None)
    with pytest.raises(KeyboardInterrupt), LiveView(console) as view:
        for event in EVENTS:
            view.handle(event)
        raise KeyboardInterrupt
    text = stream.getvalue()
    assert text.count("\x1b[?25l") == 1 and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_elsewhere_there_are_whole_plain_lines() -> None:
    lines = shown([*EVENTS, FINISHED], terminal=False, width=40).splitlines()
    assert not [line for line in lines if "\x1b" in line or line.startswith("step   2")]
    assert len(lines) == 8  # start, evaluation, three answers, note, two at the end
    assert lines[2].startswith("step 2: 'Name the capital of France' is answered 'Paris [/x]")
    assert ", expected 'Paris [/x]" in lines[2]
    assert lines[3] == "step 2: 'Say nothing' is answered ''"
    assert lines[4] == "step 2: 'Say a b' is answered 'a b', as expected"


def test_elsewhere_steps_are_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr("gpt2cli.cli.views.progress.time.monotonic", lambda: float(next(clock)))
    steps = [replace(STEP, step=number, epoch=number / 66, smoothed_loss=2.0, tok_s=50.0) for number in range(1, 41)]
    lines = [line for line in shown([STARTED, *steps], terminal=False).splitlines() if line.startswith("step")]
    assert 3 < len(lines) < 15
    assert lines[0].startswith("step ") and "loss 2.000" in lines[0] and " left" in lines[0] and "50 tok/s" in lines[0]


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal: bool) -> None:
    assert shown([*EVENTS, FINISHED], terminal=terminal, quiet=True) == ""


@pytest.mark.parametrize(
    ("reason", "words"),
    [("interrupted", "interrupted: 1 step, 1 token"), ("patience", "stopped early, as the validation loss")],
)
def test_the_end_says_why(reason: str, words: str) -> None:
    text = shown(
        [
            replace(
                FINISHED,
                steps=1,
                tokens_seen=1,
                train_seconds=0.6,
                final_train_loss=None,
                final_val_loss=None,
                reason=reason,
            )
        ],
        terminal=False,
    )
    assert text.startswith(words) and "0:01 of training" in text and "loss:" not in text


def test_a_validation_loss_of_another_step_says_so() -> None:
    text = shown(
        [replace(ENDED, final_val_loss=4.73, final_val_step=0)],
        terminal=False,
    )
    assert "loss: training 2.670 (the last step), validation 4.730 before training" in text
    text = shown(
        [replace(ENDED, final_val_loss=5.1, final_val_step=20)],
        terminal=False,
    )
    assert "validation 5.100 at step 20 (best 4.730 before training)" in text


def test_a_resumed_run_says_where_it_goes_on() -> None:
    assert "continuing after step 120 of 200" in shown(
        [replace(STARTED, step=120)],
        terminal=False,
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_checkpoints_are_shown_only_if_asked_for(terminal: bool) -> None:
    assert "saved" not in shown(EVENTS, terminal=terminal)
    assert "step 2: saved /runs/step-2" in shown(EVENTS, terminal=terminal, verbose=True)


def test_the_start_tells_what_is_used() -> None:
    some = replace(STARTED, val_used=12, samples_from_training=True)
    lines = shown([some, Evaluated(0, 0, 4.5, True)], terminal=False).splitlines()
    assert lines[1:] == [
        "validates on 12 of 100 records, to save time; --eval-every N uses all",
        "the sample prompts are training records, because nothing is held out",
        "before training: validation loss 4.500",
    ]
    talks = shown([replace(some, noun="conversation")], terminal=False)
    assert "12 of 100 conversations," in talks and "are training conversations," in talks
    text = replace(STARTED, plain_text=True, noun="text block", train_examples=256, val_examples=0, val_used=0)
    assert shown([text], terminal=False) == "training 2,359,296 of 124,439,808 parameters\n"
    seen = shown([replace(text, samples_from_training=True), EVENTS[4]], terminal=False).splitlines()
    assert seen[1] == "the sample prompts are beginnings of training texts, because nothing is held out"
    assert seen[3] == "step 2: 'Say nothing' is continued with ''"
    assert "parameters, with 1 text block held out" in shown(
        [replace(text, val_examples=1, val_used=1)], terminal=False
    )


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    printer = JsonEvents(Console())
    for event in [*EVENTS, FINISHED]:
        printer.handle(event)
    out, err = capsys.readouterr()
    objects = [json.loads(line) for line in out.splitlines()]
    kinds = ["started", "step", "step", "eval", "sampled", "saved", "finished"]
    assert [each["kind"] for each in objects] == kinds and err == ""
    assert objects[2]["loss"] == 2.0 and objects[5]["path"] == "/runs/step-2"
    assert objects[4]["answers"][1] == {"prompt": "Say nothing", "answer": "", "expected": None}


def test_words() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 3599, 36000)] == ["0:00", "1:00", "59:59", "10:00:00"]
    assert [counted(number, "step") for number in (0, 1, 1000)] == ["0 steps", "1 step", "1,000 steps"]
    assert shortened("a\n b", 3) == "a b" and shortened("abcdef", 5) == "ab..."


class Broken(Console):
    """A console whose stdout fails at the second object."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error, self.written = error, 0

    def json(self, value: object) -> None:
        self.written += 1
        if self.written == 2:
            raise self.error


@pytest.mark.parametrize(
    ("error", "raised"), [(BrokenPipeError(), BrokenPipeError), (OSError(28, "full"), ResourceError)]
)
def test_events_that_cannot_be_written_end_nothing_before_the_end(error: OSError, raised: type[Exception]) -> None:
    console = Broken(error)
    events = JsonEvents(console)
    for event in EVENTS:
        events.handle(event)
    assert console.written == 2
    with pytest.raises(raised):
        events.raise_failed()
