"""The memory of fine-tuning a model of some shape at the default settings, before there is any data."""

import torch

from gpt2cli.config import GPTConfig, LoRAConfig
from gpt2cli.data.batches import make_rows
from gpt2cli.data.dataset import TokenDataset, from_sequences
from gpt2cli.model.device import TOKENS_PER_PASS
from gpt2cli.training.inputs import shape_only
from gpt2cli.training.job import Job, compute_dtype
from gpt2cli.training.optim import Optimizer
from gpt2cli.training.settings import Settings
from gpt2cli.training.sizes import memory_needed

PROMPT, RECORD = 40, 180
"""Tokens at the beginning of Alpaca's prompts, which all have, and of a record of a batch that takes two passes."""


def finetuning_memory(shape: GPTConfig, lora: LoRAConfig | None, device: torch.device) -> int:
    """The peak memory in bytes of `gpt2 finetune` at the default settings, as in its plan: see `memory_needed`.

    The batch is a large one of records such as Alpaca's. One of short records needs less.
    """
    settings = Settings(from_scratch=shape, lora=lora)
    model, autocast = shape_only(settings), compute_dtype(settings, device)
    data, tokens = _records(settings.train.batch_size, shape.block_size), TOKENS_PER_PASS[device.type]
    job = Job(model=model, train=data, val=None, config=settings.train, autocast=autocast, max_tokens=tokens)
    rows = make_rows(data, range(len(data)), tokens, device)
    return memory_needed(job, Optimizer(model, settings.train), device, rows, steps=1)


def _records(count: int, window: int) -> TokenDataset:
    """Records that begin alike, and whose targets are the other tokens."""
    record = torch.arange(min(RECORD, window + 1)).to(torch.uint16)
    prompt = min(PROMPT, window // 2)
    return from_sequences([record] * count, [1 + prompt] * count)
