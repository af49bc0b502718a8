"""Writes a low-rank adapter in the format of the PEFT library."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2cli.checkpoints.adapter_files import CONFIG, WEIGHTS
from gpt2cli.checkpoints.save import disk_errors, write_tensors, writing
from gpt2cli.config import ADAPTED, LoRAConfig

_PREFIX = "base_model.model.transformer."


def save_adapter(
    directory: Path,
    tensors: dict[str, Tensor],
    config: LoRAConfig,
    *,
    base: str | None = None,
    template: dict[str, str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write the tensors of `lora_state` to a directory that PEFT opens on transformers' GPT-2.

    The prompt template and the provenance (any JSON value) go into the header of the tensors' file. An existing file
    stays until the new one is complete. Raises ResourceError if the disk is full, or there is no parent directory.
    """
    name, at, revision = (base or "").partition("@")
    if at and Path(str(base)).exists():
        name, revision = str(base), ""
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name or None,
        "revision": revision or None,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(dict.fromkeys(name.rpartition(".")[2] for name in ADAPTED)),
        "fan_in_fan_out": True,  # of transformers' GPT-2, which PEFT adapts
        "bias": "none",
        "inference_mode": True,
    }
    theirs = {f"{_PREFIX}{name}.weight": tensor for name, tensor in tensors.items()}
    with disk_errors(directory):
        directory.mkdir(exist_ok=True)
    with writing(directory / WEIGHTS) as temporary:
        write_tensors(temporary, theirs, {"format": "pt", "template": template, "provenance": provenance or {}})
    with writing(directory / CONFIG) as temporary:
        temporary.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
