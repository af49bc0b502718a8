"""The plot of a run: training and validation loss over its steps."""

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli import atomic, untrusted
from gpt2cli.training.events import SMOOTHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 60  # up to this many steps are drawn as points, more as a line
TRAINING, VALIDATION = "#3b6fb6", "#d1632b"


@dataclass
class Losses:
    """The data of the plot: by step, the loss and the smoothed loss in nats, and the tokens seen so far."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)


def plot_losses(metrics: Path, out: Path) -> str | None:
    """Draw the losses in a run's metrics.jsonl into the PNG file `out`.

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
    found = Losses()
    tokens = 0
    for line in metrics.read_text(encoding="utf-8").splitlines() if untrusted.is_file(metrics) else ():
        fields = untrusted.parse_json(line)
        if fields["kind"] == "step":
            tokens += fields["tokens"]
            found.steps.append(fields["step"])
            found.losses.append(fields["loss"])
            found.smoothed.append(fields["smoothed_loss"])
            found.tokens.append(tokens)
        elif fields["kind"] == "eval":
            found.val_steps.append(fields["step"])
            found.val_losses.append(fields["val_loss"])
    return found


def draw(data: Losses, out: Path) -> None:
    """Write the plot as a PNG file."""
    # without a handler, matplotlib writes warnings about its font cache to stderr
    logging.getLogger("matplotlib").addHandler(logging.NullHandler())
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")  # not pyplot, which keeps global state
    axes = figure.add_subplot()
    if data.steps:
        marker = "." if len(data.steps) <= MANY else "-"
        axes.plot(data.steps, data.losses, marker, color=TRAINING, alpha=0.25, linewidth=0.8)
        axes.plot(data.steps, data.smoothed, color=TRAINING, label=f"training (mean of {SMOOTHED} steps)")
        draw_tokens(axes, data)
    if data.val_steps:
        axes.plot(data.val_steps, data.val_losses, "o-", ms=4, color=VALIDATION, label="validation", clip_on=False)
    axes.set_xlim(0, max([1, *data.steps, *data.val_steps]))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if data.steps or data.val_steps:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no steps yet", transform=axes.transAxes, ha="center", color="gray")
    with atomic.replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


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
