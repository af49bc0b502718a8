"""Checks that end a run at the first number that is not finite, before useless weights are saved."""

import math
from pathlib import Path

import torch
from torch import nn

from gpt2cli.errors import DivergedError
from gpt2cli.training.checkpoint_directories import checkpoints as saved_in


def check_step(step: int, *, loss: float, grad_norm: float, records: list[int], checkpoints: Path | None) -> None:
    """Raise DivergedError if the loss or the gradient of a step, counted from 1, is not finite."""
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        shown = ", ".join(map(str, sorted(records)[:8])) + (", ..." if len(records) > 8 else "")
        raise DivergedError(
            f"loss {loss}, gradient norm {grad_norm} at step {step} (training records {shown}): "
            f"lower --lr, or look at these records{_kept(checkpoints)}"
        )


def check_validation(step: int, loss: float, checkpoints: Path | None) -> None:
    """Raise DivergedError if the validation loss after a step is not finite. Step 0 is the start of the run."""
    if math.isfinite(loss):
        return
    if step == 0:
        raise DivergedError(f"validation loss {loss} before the first step: start from another model")
    raise DivergedError(
        f"validation loss {loss} after step {step}: start a new run with a lower --lr{_kept(checkpoints)}"
    )


def check_weights(step: int, model: nn.Module, checkpoints: Path | None) -> None:
    """Raise DivergedError if a trained weight is not finite: no command opens a file with such a weight."""
    trained = [p.detach() for p in model.parameters() if p.requires_grad]
    largest = torch.stack([value.float() for value in torch._foreach_norm(trained, math.inf)])
    if not bool(largest.isfinite().all()):
        raise DivergedError(
            f"the weights after step {step} are not finite: start a new run with a lower --lr{_kept(checkpoints)}"
        )


def _kept(directory: Path | None) -> str:
    """The end of an error message: the run's checkpoints, if it has any."""
    kept = saved_in(directory) if directory else []
    return f"; these checkpoints are intact: {', '.join(map(str, kept))}" if kept else ""
