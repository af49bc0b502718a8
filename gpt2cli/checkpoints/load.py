"""The Python API for loading a model: `gpt2cli.load`, and `load_plain` for training and export."""

from pathlib import Path
from typing import TYPE_CHECKING

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.part_names import Part, parse_parts
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
    ablate: str | None = None,
) -> Decoder:
    """A decoder of a model, ready to run, with its weights laid out for speed. It cannot be trained or saved.

    `ablate` names parts to take out, such as `9.6,mlp.3` (head 6 of layer 9, and the MLP of layer 3). The other
    arguments are those of `ModelSpec` and of its method `load`. Raises UsageError for a part that is not there.
    """
    spec = ModelSpec(model, ckpt, device, precision, offline, ablate=_parts(ablate))
    return spec.load(progress, for_text=for_text, compile=compile)


def load_plain(
    model: str | None = None,
    *,
    ckpt: str | Path | None = None,
    device: str = "auto",
    offline: bool = False,
    for_text: bool = False,
    progress: Progress = ignore,
    ablate: str | None = None,
) -> "GPT":
    """A model in fp32 and evaluation mode. The arguments are those of `load`."""
    spec = ModelSpec(model, ckpt, device, offline=offline, ablate=_parts(ablate))
    return spec.load_plain(progress, for_text=for_text)


def _parts(ablate: str | None) -> tuple[Part, ...]:
    return () if ablate is None else parse_parts(ablate)
