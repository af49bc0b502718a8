"""The optimizer and its schedule."""

import math

import torch
from torch import Tensor, nn

from gpt2cli.config import TrainConfig

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's own (Kingma & Ba 2014)."""


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017) over what a model has to train.

    Matrices decay, biases and LayerNorms do not. The arithmetic is torch's own fused kernel, which passes once over
    each weight, its gradient and its two moments, and clips on the way. `torch.optim.AdamW` calls the same one, but
    imports torch's compiler to do so: two seconds and 75 MB.

    state  the moments and the number of steps, `exp_avg`, `exp_avg_sq` and `step`, of each parameter once it has moved
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.decayed = [p for p in trained if p.dim() >= 2]
        self.plain = [p for p in trained if p.dim() < 2]
        self.weight_decay, self.clip = config.weight_decay, config.clip
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def gradient_norm(self) -> float:
        """The norm of all gradients together."""
        return float(nn.utils.get_total_norm([p.grad for p in self.decayed + self.plain if p.grad is not None]))

    @torch.no_grad()
    def step(self, learning_rate: float, gradient_norm: float) -> None:
        """Move every parameter that has a gradient, and take the gradients away.

        They count as if scaled so that their norm together, `gradient_norm`, is at most the limit.
        """
        for parameters, decay in ((self.decayed, self.weight_decay), (self.plain, 0.0)):
            moving: list[Tensor] = [p for p in parameters if p.grad is not None]
            if not moving:
                continue
            gradients = [p.grad for p in moving if p.grad is not None]
            states = [self.state.get(p) or self.begin(p) for p in moving]
            divisor = torch.tensor(max(1.0, gradient_norm / self.clip), device=moving[0].device)
            kernel_divides = moving[0].device.type != "mps"  # where it is not known to
            if not kernel_divides:
                torch._foreach_div_(gradients, divisor)
            steps = [state["step"].add_(1) for state in states]
            torch._fused_adamw_(
                moving,
                gradients,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=learning_rate,
                beta1=BETA_1,
                beta2=BETA_2,
                eps=EPSILON,
                weight_decay=decay,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor if kernel_divides else None,
            )
            for parameter in moving:
                parameter.grad = None

    def begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """A parameter's state before its first step."""
        state = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        self.state[parameter] = state
        return state


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The rate of optimizer step `step`, counted from 0: up in a line for `warmup` steps, then down to 0 or level."""
    warmup = min(config.warmup, total_steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.schedule]
    return config.learning_rate * factor
