"""A model in a file of 8 or 4 bits a weight, which `load` opens like any other checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from gpt2cli.checkpoints import quantized_file
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import provenance_of, read_metadata
from gpt2cli.checkpoints.save import check_target, save_state
from gpt2cli.errors import UsageError
from gpt2cli.export.request import is_read
from gpt2cli.progress import Progress, ignore

BITS = (8, 4)
SUFFIX = ".safetensors"
STORED = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class Quantized:
    """The result: bytes of the weights in fp32 and of the file, and the root mean square of the rounding errors,
    divided by that of the weights."""

    fp32_bytes: int
    bytes: int
    error: float


def quantize(
    model: str | None,
    ckpt: str | None,
    bits: int,
    out: Path,
    *,
    force: bool = False,
    offline: bool = False,
    progress: Progress = ignore,
) -> Quantized:
    """Write a model, named as for `load`, to the file `out` with its matrices in `bits`, 8 or 4.

    A model that is stored in 8 bits can be written in 4. An existing file is replaced only with `force`, and stays
    until the new one is whole. Raises UsageError for invalid arguments and for a model that is in so few bits already,
    CheckpointError for weights that do not fit into so few bits, ResourceError if the disk is full, and what `load`
    raises.
    """
    check(model, ckpt, bits, out, force)
    gpt = load_plain(model, ckpt=ckpt, device="cpu", offline=offline, progress=progress)
    stored = STORED.get(gpt.origin.precision)
    if stored is not None and stored <= bits:
        instead = "; --bits 4 makes it smaller" if stored > min(BITS) else ": quantize the model that it was made from"
        raise UsageError(f"{ckpt or model} is in {stored} bits already{instead}")
    facts, where = read_metadata(ckpt, model), ckpt or model
    facts.prompt_template(where)  # raises if it lacks a part
    tensors = quantized_file.share_equal_rows({name: tensor.detach() for name, tensor in gpt.state_dict().items()})
    small = quantized_file.quantize(tensors, bits)
    rounding = quantized_file.check_rounding(tensors, small)
    save_state(small, gpt.config, out, template=facts.template, provenance=provenance_of(facts, gpt))
    fp32_bytes = sum(parameter.nbytes for parameter in gpt.parameters())
    return Quantized(fp32_bytes, out.stat().st_size, rounding.relative)


def check(model: str | None, ckpt: str | None, bits: int, out: Path, force: bool) -> None:
    """Raise UsageError or ResourceError for whatever can be refused before a model is loaded."""
    if model is None and ckpt is None:
        raise UsageError("say what to quantize: --ckpt FILE, or --model NAME")
    if bits not in BITS:
        raise UsageError(f"--bits must be {' or '.join(map(str, BITS))}, not {bits}")
    if out.suffix != SUFFIX:
        raise UsageError(f"{out} is no name for a quantized checkpoint: let it end in {SUFFIX}")
    check_target(out)
    if out.exists():
        if is_read(out, model, ckpt):
            raise UsageError(f"{out} is the model to quantize: write elsewhere")
        if not force:
            raise UsageError(f"{out} is there already: use --force to replace it, or write elsewhere")
