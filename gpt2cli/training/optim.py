"""The optimizers and their schedule."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gpt2cli.config import TrainConfig
from gpt2cli.model.gpt import GPT

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's own (Kingma & Ba 2014)."""
MOMENTUM = 0.95
"""The share of its momentum that Muon keeps at a step (Jordan et al. 2024)."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that Muon iterates: they bring singular values between 0 and 1 near 1 fastest."""
NEWTON_SCHULZ_STEPS = 5
ADAM_RMS = 0.2
"""The root mean square of AdamW's updates in practice, to which Muon's are scaled: both take the same learning rate."""

State = dict[Tensor, dict[str, Tensor]]


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017) over parameters.

    Matrices decay, biases and LayerNorms do not. The arithmetic is torch's own fused kernel, which passes once over
    each weight, its gradient and its two moments, and clips on the way. `torch.optim.AdamW` calls the same one, but
    imports torch's compiler to do so: two seconds and 75 MB.

    state  the moments and the number of steps, `exp_avg`, `exp_avg_sq` and `step`, of each parameter once it has moved
    """

    keys = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, parameters: Iterable[Tensor], config: TrainConfig, state: State) -> None:
        trained = list(parameters)
        self.decayed = [p for p in trained if p.dim() >= 2]
        self.plain = [p for p in trained if p.dim() < 2]
        self.weight_decay, self.clip, self.state = config.weight_decay, config.clip, state

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
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1.0)
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


class Muon:
    """Momentum whose update is made orthogonal, over the matrices of a model's blocks (Jordan et al. 2024).

    The matrix is moved along U V^T, where U S V^T are the singular values of its momentum: every direction by the
    same amount. A `c_attn` counts as three matrices: query, key and value. The update is scaled to the size of
    AdamW's, as in "Muon is Scalable for LLM Training" (Liu et al. 2025), and the weight decay is decoupled.

    state  `momentum_buffer` of each matrix once it has moved
    """

    keys = ("momentum_buffer",)

    def __init__(self, matrices: dict[str, Tensor], config: TrainConfig, state: State) -> None:
        self.parts = {matrix: 3 if "c_attn" in name and "lora" not in name else 1 for name, matrix in matrices.items()}
        self.weight_decay, self.clip, self.state = config.weight_decay, config.clip, state

    @torch.no_grad()
    def step(self, learning_rate: float, gradient_norm: float) -> None:
        """Move every matrix that has a gradient, and take the gradients away. As `AdamW.step`."""
        moving = [p for p in self.parts if p.grad is not None]
        if not moving:
            return
        gradients = [p.grad for p in moving if p.grad is not None]
        momenta = [(self.state.get(p) or self.begin(p))["momentum_buffer"] for p in moving]
        torch._foreach_div_(gradients, max(1.0, gradient_norm / self.clip))
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's momentum
        torch._foreach_mul_(moving, 1 - learning_rate * self.weight_decay)
        pieces = [piece for p, update in zip(moving, updates, strict=True) for piece in update.chunk(self.parts[p])]
        places = [piece for p in moving for piece in p.chunk(self.parts[p])]
        for shape in {piece.shape for piece in pieces}:  # matrices of a shape in one batch
            alike = [i for i, piece in enumerate(pieces) if piece.shape == shape]
            directions = orthogonalize(torch.stack([pieces[i] for i in alike]))
            size = ADAM_RMS * math.sqrt(max(shape))
            torch._foreach_add_([places[i] for i in alike], list(directions.unbind()), alpha=-learning_rate * size)
        for parameter in moving:
            parameter.grad = None

    def begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """A matrix's state before its first step."""
        state = {"momentum_buffer": torch.zeros_like(parameter)}
        self.state[parameter] = state
        return state


def orthogonalize(matrices: Tensor) -> Tensor:
    """About U V^T of each matrix U S V^T in (n, rows, columns): its singular values come between 0.7 and 1.2.

    Five Newton-Schulz steps of a quintic polynomial, in bf16 on CUDA.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.device.type == "cuda" else matrices
    wide = x if x.shape[1] <= x.shape[2] else x.mT
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)  # no singular value is above 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = wide @ wide.mT
        wide = a * wide + (b * square + c * (square @ square)) @ wide
    found: Tensor = wide if x.shape[1] <= x.shape[2] else wide.mT
    return found.to(matrices.dtype)


class Optimizer:
    """What moves a model's parameters: AdamW, or Muon for the matrices of its blocks and AdamW for the rest.

    state  of each parameter once it has moved, by the names in `keys`
    """

    def __init__(self, model: GPT, config: TrainConfig) -> None:
        self.state: State = {}
        self.parts: list[AdamW | Muon] = []
        self.keys: dict[Tensor, tuple[str, ...]] = {}
        trained: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.trained = list(trained.values())
        if config.optimizer == "muon":
            matrices = {name: p for name, p in trained.items() if name.startswith("h.") and p.dim() == 2}
            trained = {name: p for name, p in trained.items() if name not in matrices}
            self.parts.append(Muon(matrices, config, self.state))
            self.keys |= dict.fromkeys(matrices.values(), Muon.keys)
        self.parts.append(AdamW(trained.values(), config, self.state))
        self.keys |= dict.fromkeys(trained.values(), AdamW.keys)

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients together, a scalar."""
        norm: Tensor = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        return norm

    def step(self, learning_rate: float, gradient_norm: float) -> None:
        """Move every parameter that has a gradient, and take the gradients away.

        They count as if scaled so that their norm together, `gradient_norm`, is at most the limit.
        """
        for part in self.parts:
            part.step(learning_rate, gradient_norm)


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The rate of optimizer step `step`, counted from 0: up in a line for `warmup` steps, then down to 0 or level."""
    warmup = min(config.warmup, total_steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.schedule]
    return config.learning_rate * factor
