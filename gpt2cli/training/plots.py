"""The plot of a run: training and validation loss over its steps, and the lowest validation loss."""

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import atomic, untrusted
from gpt2cli.published import DEFAULT_MODEL
from gpt2cli.training.stored_json import read_object

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 60  # up to this many steps are drawn as points, more as a line
PARTS, WIDEST = 10, 101  # each mean of the training loss covers a tenth of the steps, at most WIDEST steps
MARGINS = (0.09, 0.12, 0.88, 0.70)  # left, bottom, width and height: to compute them takes as long as to draw the plot
TRAINING, VALIDATION = "#3b6fb6", "#d1632b"


@dataclass
class Losses:
    """The data of the plot: for each step the loss in nats, the number of its targets, and the tokens seen so far.

    title  the model and the data; empty if they are not known
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    title: str = ""


def plot_losses(metrics: Path, out: Path) -> str | None:
    """Draw the losses in a run's metrics.jsonl into the PNG file `out`. The title is made of the config.json beside it.

    Returns None, or the reason why that failed. It raises no error, because a plot must not end a run.
    """
    try:
        draw(read_losses(metrics), out)
    except ImportError as error:
        return f"no {out.name}: matplotlib cannot be imported ({error})"
    except Exception as error:
        return f"no {out.name}: {type(error).__name__}: {error}"
    return None


def read_losses(metrics: Path) -> Losses:
    """The losses in a run's metrics.jsonl; none if the file does not exist."""
    found = Losses(title=read_title(metrics.with_name("config.json")))
    tokens = 0
    for line in metrics.read_text(encoding="utf-8").splitlines() if untrusted.is_file(metrics) else ():
        fields = untrusted.parse_json(line)
        if fields["kind"] == "step":
            tokens += fields["tokens"]
            found.steps.append(fields["step"])
            found.losses.append(fields["loss"])
            found.targets.append(fields.get("targets", fields["tokens"]))
            found.tokens.append(tokens)
        elif fields["kind"] == "eval":
            found.val_steps.append(fields["step"])
            found.val_losses.append(fields["val_loss"])
    return found


def read_title(config: Path) -> str:
    """The model and the data of the run with this config.json; empty if it cannot be read."""
    try:
        settings = read_object(config)
    except (OSError, ValueError):
        return ""
    model = settings.get("ckpt") or settings.get("model") or DEFAULT_MODEL
    data = settings.get("data") or "Alpaca"
    names = [untrusted.shown_name(Path(str(place)).name) for place in (model, data)]
    return f"{'a new model' if settings.get('from_scratch') else names[0]} on {names[1]}"


def centred_mean(losses: list[float], targets: list[int], width: int) -> list[float]:
    """For each step, the mean loss of all targets in `width` steps (an odd number) of which it is in the middle.

    It is not late, as the mean of the last steps is. Near both ends, the mean is over fewer steps.
    """
    total, count = [0.0], [0]
    for loss, n in zip(losses, targets, strict=True):
        total.append(total[-1] + loss * n)
        count.append(count[-1] + n)
    means = []
    for i in range(len(losses)):
        side = min(width // 2, i, len(losses) - 1 - i)
        first, last = i - side, i + side + 1
        means.append((total[last] - total[first]) / max(1, count[last] - count[first]))
    return means


def draw(data: Losses, out: Path) -> None:
    """Write the plot as a PNG file."""
    # without a handler, matplotlib writes warnings about its font cache to stderr
    logging.getLogger("matplotlib").addHandler(logging.NullHandler())
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5))  # not pyplot, which keeps global state
    axes = figure.add_axes(MARGINS)
    if data.steps:
        draw_training(axes, data)
        draw_tokens(axes, data)
    if len(data.val_steps) > 1:  # one evaluation shows no development
        draw_validation(axes, data)
    axes.set_title(data.title, parse_math=False)
    axes.set_xlim(0, max([1, *data.steps, *data.val_steps]))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no steps yet", transform=axes.transAxes, ha="center", color="gray")
    with atomic.replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def draw_training(axes: "Axes", data: Losses) -> None:
    """Draw the loss of each step and, if there are enough steps, the mean over some."""
    width = min(len(data.steps) // PARTS // 2 * 2 + 1, WIDEST)
    marker = "." if len(data.steps) <= MANY else "-"
    if width < 3:
        axes.plot(data.steps, data.losses, ".-", color=TRAINING, linewidth=0.8, label="training")
        return
    axes.plot(data.steps, data.losses, marker, color=TRAINING, alpha=0.25, linewidth=0.8)
    mean = centred_mean(data.losses, data.targets, width)
    whole = slice(width // 4, len(mean) - width // 4)  # at the very ends, the mean is over too few steps
    axes.plot(data.steps[whole], mean[whole], color=TRAINING, label=f"training (centred mean of {width} steps)")


def draw_validation(axes: "Axes", data: Losses) -> None:
    """Draw the validation loss, with a ring around the lowest."""
    axes.plot(data.val_steps, data.val_losses, "o-", ms=4, color=VALIDATION, label="validation", clip_on=False)
    best = min(range(len(data.val_losses)), key=data.val_losses.__getitem__)
    step, loss = data.val_steps[best], data.val_losses[best]
    label = f"best: {loss:.3f} at step {step}" if step else f"best: {loss:.3f} before training"
    axes.plot([step], [loss], "o", ms=10, mfc="none", mec=VALIDATION, label=label, clip_on=False)


def draw_tokens(axes: "Axes", data: Losses) -> None:
    """Add a second axis at the top: the tokens seen so far."""
    import numpy as np
    from matplotlib.ticker import EngFormatter, MaxNLocator

    # one more point far outside: without it, ticks beyond the run would be drawn at its end
    steps, tokens = [0, *data.steps, 2 * data.steps[-1]], [0, *data.tokens, 2 * data.tokens[-1]]
    to_tokens, to_steps = partial(np.interp, xp=steps, fp=tokens), partial(np.interp, xp=tokens, fp=steps)
    top = axes.secondary_xaxis("top", functions=(to_tokens, to_steps))
    top.xaxis.set_major_locator(MaxNLocator(nbins=6))
    top.xaxis.set_major_formatter(EngFormatter(sep=""))
    top.set_xlabel("tokens")
