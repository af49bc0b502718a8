"""The optimizer and its schedule."""

import math

import torch
from torch import Tensor, nn

from gpt2cli.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2017) over what is to be trained; matrices decay, biases and LayerNorms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trained)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The rate of optimizer step `step`, counted from 0: up in a line for `warmup` steps, then down to 0 or level."""
    warmup = min(config.warmup, total_steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.schedule]
    return config.learning_rate * factor


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Scale all gradients so that their norm together is at most `limit`; the norm before that."""
    norm: Tensor = nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], limit)
    return float(norm)
