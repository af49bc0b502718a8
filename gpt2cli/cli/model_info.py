"""All that `gpt2 info` tells about a model, as numbers."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from gpt2cli.bench import Speed
from gpt2cli.checkpoints.described import Described
from gpt2cli.config import GPTConfig, LoRAConfig, SamplingConfig
from gpt2cli.inference.cpu.weight_packing import automatic_precision
from gpt2cli.inference.memory import cache_bytes_per_token, generating_bytes, weight_bytes
from gpt2cli.model.anatomy import Parameters, count_parameters, flops_per_token
from gpt2cli.training.default_memory import finetuning_memory
from gpt2cli.training.sizes import free_memory

PRECISIONS = ("fp32", "fp16", "int8", "int4")
CPU = torch.device("cpu")
MB = 2**20


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The facts and sizes of a model. Memory is the peak of a process on a CPU, in bytes.

    precision       the automatic one: see `automatic_precision`
    flops           of a forward pass for one token, with a full window of context
    cache           bytes of the keys and values of one token, in `precision`
    weights         bytes of the weights in memory, by precision
    generate        memory for generating text in each precision, with the default number of tokens
    finetune        memory for fine-tuning all weights at the default settings, finetune_lora for an adapter
    free            bytes that a process can have; None if that is not known
    """

    name: str
    described: Described
    parameters: Parameters
    precision: str
    flops: int
    cache: int
    weights: dict[str, int]
    generate: dict[str, int]
    finetune: int
    finetune_lora: int
    free: int | None
    speed: Speed | None = None

    @property
    def config(self) -> GPTConfig:
        return self.described.config

    def as_dict(self) -> dict[str, Any]:
        """The object that `gpt2 info --json` prints. Memory is in MB of 2^20 bytes."""
        config, described = self.config, self.described
        memory = {"generate": self.generate[self.precision]}
        memory |= {"finetune": self.finetune, "finetune_lora": self.finetune_lora}
        return {
            "model": self.name,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "block_size": config.block_size,
            "vocab_size": config.vocab_size,
            "tied": config.tied,
            "parameters": {"total": self.parameters.total} | asdict(self.parameters),
            "flops_per_token": self.flops,
            "flops_context": config.block_size,
            "kv_cache_bytes_per_token": self.cache,
            "weight_bytes": self.weights,
            "memory_mb": {name: _megabytes(count) for name, count in memory.items()},
            "generate_mb": {name: _megabytes(count) for name, count in self.generate.items()},
            "free_memory_mb": None if self.free is None else _megabytes(self.free),
            "precision": self.precision,
            "stored_as": described.stored_as,
            "adapter": described.adapter and asdict(described.adapter),
            "template": described.facts.template,
            "provenance": described.facts.provenance,
            "speed": self.speed and asdict(self.speed),
        }


def model_info(name: str, described: Described) -> ModelInfo:
    """The sizes of a model, computed from its shape, and the memory that is free now."""
    config, tokens = described.config, SamplingConfig().max_new_tokens
    precision = automatic_precision(described.stored_as or "fp32")
    return ModelInfo(
        name=name,
        described=described,
        parameters=count_parameters(config),
        precision=precision,
        flops=flops_per_token(config, config.block_size),
        cache=cache_bytes_per_token(config, precision),
        weights={held: weight_bytes(config, held) for held in PRECISIONS},
        generate={held: generating_bytes(config, held, min(tokens, config.block_size)) for held in PRECISIONS},
        finetune=finetuning_memory(config, None, CPU),
        finetune_lora=finetuning_memory(config, LoRAConfig(), CPU),
        free=free_memory(CPU),
    )


def _megabytes(count: int) -> float:
    return round(count / MB, 1)
