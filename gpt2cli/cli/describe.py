"""Sentences and numbers for a person: a training run's start and end, counts, durations."""

from collections.abc import Iterator

from gpt2cli.counted import counted
from gpt2cli.training.events import Finished, Started

ENDINGS = {
    "done": "done",
    "patience": "stopped early, as the validation loss no longer gets better",
    "interrupted": "interrupted",
}


def describe_start(event: Started) -> Iterator[str]:
    """What is trained; then, if only some or seen examples are used for validation and samples, which are used."""
    size = f"{event.parameters:,} parameters"
    if event.trainable_parameters < event.parameters:
        size = f"{event.trainable_parameters:,} of {size}"
    if event.step >= event.total_steps:
        yield f"no steps are left: {size}"
        return
    val_examples = counted(event.val_examples, event.noun)
    held = f", with {val_examples} held out" if event.val_examples else ""
    yield (
        f"continuing after step {event.step} of {event.total_steps}: {size}" if event.step else f"training {size}"
    ) + held
    if event.val_used < event.val_examples:
        yield f"validates on {event.val_used:,} of {val_examples}, to save time; --eval-every N uses all"
    if event.samples_from_training:
        used = "beginnings of training texts" if event.plain_text else f"training {event.noun}s"
        yield f"the sample prompts are {used}, because nothing is held out"


def describe_end(event: Finished) -> Iterator[str]:
    ending = ENDINGS.get(event.reason, event.reason)
    yield (
        f"{ending}: {counted(event.steps, 'step')}, {counted(event.tokens_seen, 'token')}, "
        f"{duration(event.train_seconds)} of training ({event.train_tok_s:,.0f} tokens/s, "
        f"{event.peak_rss_mb:,.0f} MB peak memory)"
    )
    losses = []
    if event.final_train_loss is not None:
        steps = event.final_train_loss_steps
        mean = f"mean of the last {steps} steps" if steps > 1 else "the last step"
        losses.append(f"training {event.final_train_loss:.3f} ({mean})")
    if event.final_val_loss is not None:
        losses.append(f"validation {event.final_val_loss:.3f}")
        if event.final_val_step != event.steps:
            losses[-1] += f" {when(event.final_val_step)}"
        if event.got_worse:
            losses[-1] += f" (best {event.best_val_loss:.3f} {when(event.best_val_step)})"
    if losses:
        yield f"loss: {', '.join(losses)}"


def when(step: int | None) -> str:
    return f"at step {step}" if step else "before training"


def duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def shortened(text: str, length: int) -> str:
    """The text on one line, cut to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
