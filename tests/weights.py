"""Random weights of a small model as arrays. Does not import torch."""

import numpy as np

from gpt2cli.config import GPTConfig

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=10, vocab_size=300)


class Weights(dict):
    """The weights of a model. Knows which tensors were released, and refuses them from then on."""

    def __init__(self, config, seed=0):
        random, C = np.random.default_rng(seed), config.n_embd
        shapes = {"wte.weight": (config.vocab_size, C), "wpe.weight": (config.block_size, C)}
        if not config.tied:
            shapes["lm_head.weight"] = (config.vocab_size, C)
        for layer in range(config.n_layer):
            sizes = {"attn.c_attn": (3 * C, C), "attn.c_proj": (C, C), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
            shapes |= {f"h.{layer}.{name}.weight": shape for name, shape in sizes.items()}
            shapes |= {f"h.{layer}.{name}.bias": shape[:1] for name, shape in sizes.items()}
        for norm in ("ln_f", *(f"h.{layer}.ln_{n}" for layer in range(config.n_layer) for n in (1, 2))):
            shapes |= {f"{norm}.weight": (C,), f"{norm}.bias": (C,)}
        super().__init__({name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()})
        self.released = []

    def __getitem__(self, name):
        assert name not in self.released
        return super().__getitem__(name)

    def release(self, name):
        self.released.append(name)
