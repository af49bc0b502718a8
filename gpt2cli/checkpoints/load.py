"""The Python API for loading a model: `gpt2cli.load`, and `load_plain` for training and export."""

from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.inference.decoder import Decoder
from gpt2cli.progress import Progress, ignore

if TYPE_CHECKING:
    from gpt2cli.model.gpt import GPT


def load(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    offline: bool = False,
    for_text: bool = False,
    progress: Progress = ignore,
    compile: bool = False,
) -> Decoder:
    """A decoder of a model, ready to run, with its weights laid out for speed. It cannot be trained or saved.

    The arguments are those of `ModelSpec` and of its method `load`.
    """
    return ModelSpec(model, ckpt, device, precision, offline).load(progress, for_text=for_text, compile=compile)


def load_plain(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    offline: bool = False,
    for_text: bool = False,
    progress: Progress = ignore,
) -> "GPT":
    """A model in fp32 and evaluation mode. The arguments are those of `ModelSpec` and of its method `load_plain`."""
    return ModelSpec(model, ckpt, device, offline=offline).load_plain(progress, for_text=for_text)
