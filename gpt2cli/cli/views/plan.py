"""Shows the plan of a training run before its first step, and corrects it if the steps take another time."""

from collections.abc import Callable, Iterator
from dataclasses import asdict

from gpt2cli.cli.terminal import Console, visible
from gpt2cli.cli.views.training import JsonEvents
from gpt2cli.counted import counted
from gpt2cli.training.estimate import Plan
from gpt2cli.training.events import Event, Step
from gpt2cli.training.plan_warnings import gigabytes, warnings_of
from gpt2cli.training.settings import Settings

STEPS_BEFORE_A_CORRECTION = 5
"""The first step is not counted: it loads libraries and compiles kernels."""
TOLERANCE = 0.2
"""The difference between the planned and the measured time, as a fraction, from which a correction is shown."""
WORTH_A_CORRECTION = 60.0
"""Seconds that must be left."""


def show_plan(
    plan: Plan, settings: Settings, console: Console, events: JsonEvents | None, *, is_result: bool = False
) -> None:
    """Print the plan and its warnings: as JSON if there are `events`, and for people.

    is_result  whether the plan is all that the command was asked for; then its lines go to stdout
    """
    warnings = warnings_of(plan, settings)
    if events:
        events.write({"kind": "plan"} | asdict(plan) | {"warnings": warnings})
    elif is_result:
        console.write("".join(visible(line) + "\n" for line in lines_of(plan)))
    if events or not is_result:
        for line in lines_of(plan):
            console.note(line)
    for warning in warnings:
        console.note(f"warning: {warning}", wrap=True)


def lines_of(plan: Plan) -> Iterator[str]:
    """What the run reads, and what it takes and needs."""
    steps = f"{counted(plan.steps, 'step')} in {counted(plan.epochs, 'epoch')}"
    if plan.step:
        left = max(0, plan.steps - plan.step)
        steps = f"{counted(left, 'step')} of {plan.steps:,} {'is' if left == 1 else 'are'} left"
    yield f"{counted(plan.examples, plan.noun)}, {counted(plan.epoch_tokens, 'token')} an epoch: {steps}"
    yield f"about {rough(plan.seconds)} of training on {plan.device}"
    yield f"memory: {gigabytes(plan.memory)}{_free(plan.free_memory)}"
    more = f", and up to {gigabytes(plan.disk.run)} during the run" if plan.disk.run else ""
    free = _free(plan.free_run if plan.one_disk else plan.free_out)
    yield f"disk: {gigabytes(plan.disk.out)} for the result{more}{free}"


def _free(count: int | None) -> str:
    return "" if count is None else f" ({gigabytes(count)} free)"


def rough(seconds: float) -> str:
    """A duration as exact as an estimate can be: two digits at most."""
    if seconds < 1:
        return "1 s" if seconds else "0 s"
    if seconds < 99.5:
        return f"{float(f'{seconds:.2g}'):.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


class PaceNote:
    """Notes once, after a few steps, that they take much longer or shorter than planned."""

    def __init__(self, plan: Plan, note: Callable[[str], None]) -> None:
        self._plan, self._note = plan, note
        self._seconds: list[float] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Step) and len(self._seconds) <= STEPS_BEFORE_A_CORRECTION:
            self._seconds.append(event.tokens / event.tok_s)
            if len(self._seconds) > STEPS_BEFORE_A_CORRECTION:
                self._correct(self._plan.steps - event.step)

    def _correct(self, left: int) -> None:
        planned = self._plan.seconds_per_step
        measured = sum(self._seconds[1:]) / STEPS_BEFORE_A_CORRECTION
        if left * measured > WORTH_A_CORRECTION and abs(measured - planned) > TOLERANCE * planned:
            pace = f"a step takes {measured:.2g} s, not {planned:.2g} s as estimated"
            self._note(f"{pace}: about {rough(left * measured)} of training are left")
