"""The memory of a model in inference on a CPU, computed from its shape alone. The compiled loops are assumed."""

import math

import numpy as np

from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu.packed_layout import packed_table
from gpt2cli.inference.cpu.pass_table import cache_type
from gpt2cli.inference.decoder import has_kernels

LIBRARIES = 112 * 2**20
"""Bytes of Python, its libraries, the compiled loops and the tokenizer. Measured: the same for all sizes of models."""


def weight_bytes(config: GPTConfig, precision: str) -> int:
    """Bytes of all weights as they are held in memory, with scales and padding: see `packed_table`."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in packed_table(config, precision).values())


def cache_bytes_per_token(config: GPTConfig, precision: str) -> int:
    """Bytes of the keys and values of one token in all layers: see `CPUCache`."""
    width = config.head_size
    if has_kernels():
        from gpt2cli.inference.cpu.attention_tasks import key_size

        width = key_size(config.head_size)
    return 2 * config.n_layer * config.n_head * width * np.dtype(cache_type(precision)).itemsize


def generating_bytes(config: GPTConfig, precision: str, tokens: int) -> int:
    """The peak memory of the process that generates a text, with `tokens` tokens in the KV cache.

    The first run of a model, which packs the weights, can need more: up to the size of its largest matrix in fp32.
    """
    return LIBRARIES + weight_bytes(config, precision) + tokens * cache_bytes_per_token(config, precision)
