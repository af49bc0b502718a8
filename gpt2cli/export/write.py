"""Models and adapters in the formats of other programs. `load` reads all of these formats, too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2cli.atomic import replacing_directory
from gpt2cli.checkpoints.adapter_files import is_adapter
from gpt2cli.checkpoints.adapters import read_adapter
from gpt2cli.checkpoints.metadata import Metadata, provenance_of, read_metadata
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import disk_errors, save_tensors, unshare_storage, write_pt, write_tensors, writing
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.checkpoints.torch_arrays import to_tensors
from gpt2cli.config import HEAD_SIZE, VOCAB_SIZE, GPTConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.export.card import hub_name, write_adapter_card, write_card
from gpt2cli.export.cast import cast
from gpt2cli.export.formats import CARD, FORMATS
from gpt2cli.export.from_ours import from_ours
from gpt2cli.export.gguf_file import write_gguf
from gpt2cli.export.huggingface import write_folder
from gpt2cli.export.request import Request
from gpt2cli.model.gpt import GPT
from gpt2cli.paths import expand
from gpt2cli.progress import Progress, ignore
from gpt2cli.published import PUBLISHED, TINY
from gpt2cli.untrusted import is_directory, shown


def export(request: Request, progress: Progress = ignore) -> list[Path]:
    """Write the requested export and return its files.

    An existing export stays until the new one is complete. Raises UsageError for an invalid request, CheckpointError
    for a model that the format cannot hold, ResourceError if the disk is full, and what `ModelSpec.read` raises.
    """
    request.check()
    if request.format == "peft":
        _export_adapter(request, progress)
    else:
        _export_model(request, request.spec.read(progress).float(), request.spec.metadata())
    return sorted(request.out.iterdir()) if request.out.is_dir() else [request.out]


def _export_model(request: Request, model: GPT, metadata: Metadata) -> None:
    config, out = model.config, request.out
    dtype = request.dtype or FORMATS[request.format].dtypes[0]
    template = metadata.prompt_template(request.spec.name)
    _check_fits(request.format, out.suffix, config, model.origin.other_tokenizer)
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if request.format == "gpt2cli":
        rounded = cast(tensors, dtype)
        provenance = provenance_of(metadata, model.origin.other_tokenizer)
        save_tensors(rounded, config, out, template=metadata.template, provenance=provenance)
    elif request.format == "hf":
        card = write_card(out.name, request.place, config, metadata.provenance, template, request.spec.model)
        with disk_errors(out), replacing_directory(out.resolve()) as directory:
            write_folder(directory, tensors, config, dtype, template, card)
    elif request.format == "gguf":
        with writing(out) as temporary:
            write_gguf(temporary, tensors, config, dtype, out.stem, template)
    else:
        _write_state_dict(out, request.format, cast(tensors, dtype), config)


def _check_fits(format: str, suffix: str, config: GPTConfig, other_tokenizer: str | None) -> None:
    """Raise CheckpointError for a model that could not be read, or would be read wrong, from this format."""
    if format in ("hf", "gguf") and config.vocab_size < VOCAB_SIZE:
        why, instead = f"has a vocabulary of {config.vocab_size} tokens, not GPT-2's", "use --format nanogpt or gpt2cli"
    elif format in ("hf", "gguf") and other_tokenizer:
        why, instead = f"needs another tokenizer than GPT-2's ({other_tokenizer})", "use --format nanogpt or gpt2cli"
    elif format == "nanogpt" and not config.tied:
        why, instead = "has a separate output head, which nanoGPT has not", "use --format hf"
    elif format in ("nanogpt", "original") and config.layer_norm_epsilon != GPTConfig.layer_norm_epsilon:
        why, instead = f"has a layer_norm_epsilon of {config.layer_norm_epsilon}, fixed at 1e-05", "use --format hf"
    elif format == "original" and suffix == ".pt" and config.head_size != HEAD_SIZE:
        why = f"has {config.n_head} heads, a number that a bare state dict does not hold"
        instead = "let --out end in .safetensors, whose header holds it"
    else:
        return
    raise CheckpointError(f"{format} cannot hold this model: it {why}: {instead}")


def _write_state_dict(out: Path, format: str, tensors: dict[str, Tensor], config: GPTConfig) -> None:
    """One file for nanoGPT's `sample.py`, or for the `load_state_dict` of the original project's model."""
    tensors = unshare_storage(tensors)
    tensors.setdefault("lm_head.weight", tensors["wte.weight"])  # both formats have this entry, also for a tied model
    state = from_ours(tensors, format)
    names = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "dropout")
    args: dict[str, Any] = {name: getattr(config, name) for name in names} | {"bias": True}
    with writing(out) as temporary:
        if out.suffix == ".safetensors":
            write_tensors(temporary, state, {"format": "pt", "model_args": args})
        else:
            write_pt(temporary, {"model": state, "model_args": args} if format == "nanogpt" else state)


def _export_adapter(request: Request, progress: Progress) -> None:
    source = _adapter_of(request.spec)
    if request.spec.model is not None:
        replace(request.spec, ckpt=source).shape(progress)  # raises if it is for another base
    adapter = read_adapter(source)
    if not adapter.is_plain:
        raise CheckpointError(
            f"{source} is more than plain LoRA (DoRA, biases, or ranks that differ): copy it as it is, or use "
            "--format hf, which merges it"
        )
    base = request.spec.model or adapter.base
    base = hub_name(base) if base else None
    template = adapter.facts.prompt_template(source)
    card = write_adapter_card(request.out.name, request.place, adapter.facts.provenance, template, base)
    if base and base not in (*PUBLISHED, TINY) and expand(base).exists():
        base = None if request.push else str(expand(base).absolute())  # a path means nothing on other machines
    with disk_errors(request.out), replacing_directory(request.out.resolve()) as directory:
        tensors = to_tensors(adapter.tensors)
        save_adapter(directory, tensors, adapter.config, base=base, template=adapter.facts.template)
        (directory / CARD).write_text(card, encoding="utf-8")


def _adapter_of(spec: ModelSpec) -> Path:
    """The adapter's directory: `--ckpt` itself, or the directory beside the checkpoint `--ckpt` in the same run."""
    if spec.ckpt is None:
        raise UsageError("--format peft is for adapters: give one as --ckpt, such as a LoRA run's adapter/")
    path = expand(spec.ckpt)
    if spec.names_adapter:
        return path
    beside = read_metadata(path).provenance.get("adapter")
    if beside is None:
        raise CheckpointError(f"{path} was not made with --lora, and peft holds only adapters: use --format hf")
    if not (isinstance(beside, str) and is_directory(Path(beside)) and is_adapter(Path(beside))):
        raise CheckpointError(
            f"{path} holds its adapter merged, and the adapter is no longer in {shown(beside)}: give it as --ckpt"
        )
    return Path(beside)
