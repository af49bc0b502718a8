"""The checks of a request to quantize a model, before the model is loaded. They need no torch."""

from pathlib import Path

from gpt2cli import outputs
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.errors import UsageError

SUFFIX = ".safetensors"
BITS = (8, 4)


def check_request(spec: ModelSpec, bits: int, out: Path, force: bool) -> None:
    """Raise UsageError or ResourceError for a request that cannot be fulfilled, and what `ModelSpec.check` raises."""
    if spec.model is None and spec.ckpt is None:
        raise UsageError("say what to quantize: --ckpt FILE, or --model NAME")
    if bits not in BITS:
        raise UsageError(f"--bits must be {' or '.join(map(str, BITS))}, not {bits}")
    outputs.check_suffix(out, [SUFFIX], "a quantized checkpoint")
    outputs.check_checkpoint(out)
    if out.exists() and spec.depends_on(out):
        raise outputs.refuse_input(out, "the model to quantize")
    outputs.check_free(out, force)
    spec.check()
