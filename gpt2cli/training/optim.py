"""The optimizers AdamW and Muon, and the schedule of the learning rate."""

import math

import torch
from torch import Tensor, nn

from gpt2cli.config import TrainConfig
from gpt2cli.model.device import fast_training_dtype
from gpt2cli.model.gpt import GPT

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""The defaults of Adam (Kingma & Ba 2014)."""
MOMENTUM = 0.95
"""The share of its momentum that Muon keeps in each step (Jordan et al. 2024)."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic polynomial: they move singular values between 0 and 1 near 1 in few iterations."""
NEWTON_SCHULZ_STEPS = 5
ADAMW_STATE, MUON_STATE = ("step", "exp_avg", "exp_avg_sq"), ("momentum_buffer",)
"""The names of the tensors that an optimizer keeps for each parameter, as in torch.optim."""
ADAM_RMS = 0.2
"""The usual root mean square of AdamW's updates. Muon's are scaled to it, so that both use the same learning rate."""


class Optimizer:
    """Updates a model's parameters by AdamW, or by Muon for the matrices of its blocks and AdamW for the rest.

    trained  the parameters that training changes, by name: all, or those of an adapter
    keys     the names of each parameter's state tensors
    state    the state tensors of each parameter after its first step, by these names
    """

    def __init__(self, model: GPT, config: TrainConfig) -> None:
        self.config = config
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.trained: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        muon = config.optimizer == "muon"
        # a `c_attn` counts as three matrices: query, key and value
        self.matrices: dict[Tensor, int] = {
            p: 3 if "c_attn" in name and "lora" not in name else 1
            for name, p in self.trained.items()
            if muon and name.startswith("h.") and p.dim() == 2
        }
        self.keys: dict[Tensor, tuple[str, ...]] = {
            p: MUON_STATE if p in self.matrices else ADAMW_STATE for p in self.trained.values()
        }

    def gradient_norm(self) -> Tensor:
        """The total norm of all gradients, a scalar."""
        norm: Tensor = nn.utils.get_total_norm([p.grad for p in self.keys if p.grad is not None])
        return norm

    @torch.no_grad()
    def step(self, learning_rate: float, gradient_norm: float) -> None:
        """Update every parameter that has a gradient, and delete the gradients.

        The gradients are clipped: scaled so that their total norm, now `gradient_norm`, is at most `clip`. The weight
        decay is decoupled (Loshchilov & Hutter 2017). Only matrices decay, biases and LayerNorms do not.
        """
        divisor, decay = max(1.0, gradient_norm / self.config.clip), self.config.weight_decay
        moving = [p for p in self.keys if p.grad is not None]
        for parameter in moving:
            if not self.state.get(parameter):  # empty: resumed before the first step
                self.state[parameter] = {
                    key: torch.zeros((), device=parameter.device) if key == "step" else torch.zeros_like(parameter)
                    for key in self.keys[parameter]
                }
        rest = [p for p in moving if p not in self.matrices]
        self._muon([p for p in moving if p in self.matrices], learning_rate, decay, divisor)
        self._adamw([p for p in rest if p.dim() >= 2], learning_rate, decay, divisor)
        self._adamw([p for p in rest if p.dim() < 2], learning_rate, 0.0, divisor)
        for parameter in moving:
            parameter.grad = None

    def _adamw(self, moving: list[Tensor], learning_rate: float, decay: float, divisor: float) -> None:
        """Adam (Kingma & Ba 2014), by torch's fused kernel, which clips and updates in one pass over the memory.

        `torch.optim.AdamW` calls the same kernel, but first imports torch's compiler: two seconds and 75 MB.
        """
        if not moving:
            return
        gradients = [p.grad for p in moving if p.grad is not None]
        scale = torch.tensor(divisor, device=moving[0].device)
        kernel_divides = moving[0].device.type != "mps"  # not verified on mps
        if not kernel_divides:
            torch._foreach_div_(gradients, scale)
        steps, averages, squares = ([self.state[p][key] for p in moving] for key in ADAMW_STATE)
        torch._foreach_add_(steps, 1.0)
        torch._fused_adamw_(
            moving,
            gradients,
            averages,
            squares,
            [],
            steps,
            lr=learning_rate,
            beta1=BETA_1,
            beta2=BETA_2,
            eps=EPSILON,
            weight_decay=decay,
            amsgrad=False,
            maximize=False,
            grad_scale=scale if kernel_divides else None,
        )

    def _muon(self, moving: list[Tensor], learning_rate: float, decay: float, divisor: float) -> None:
        """Muon: momentum with orthogonal updates, for matrices (Jordan et al. 2024).

        The update of a matrix is U V^T, where U S V^T is the singular value decomposition of its momentum: all
        directions change by the same amount. It is scaled to the size of AdamW's updates, as in "Muon is Scalable for
        LLM Training" (Liu et al. 2025).
        """
        if not moving:
            return
        gradients = [p.grad for p in moving if p.grad is not None]
        momenta = [self.state[p]["momentum_buffer"] for p in moving]
        torch._foreach_div_(gradients, divisor)
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's momentum
        torch._foreach_mul_(moving, 1 - learning_rate * decay)
        pieces = [piece for p, update in zip(moving, updates, strict=True) for piece in update.chunk(self.matrices[p])]
        places = [piece for p in moving for piece in p.chunk(self.matrices[p])]
        for shape in {piece.shape for piece in pieces}:  # all matrices of one shape in one batch
            alike = [i for i, piece in enumerate(pieces) if piece.shape == shape]
            directions = orthogonalize(torch.stack([pieces[i] for i in alike]))
            size = ADAM_RMS * math.sqrt(max(shape))
            torch._foreach_add_([places[i] for i in alike], list(directions.unbind()), alpha=-learning_rate * size)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Approximately U V^T for each matrix U S V^T in (n, rows, columns), with singular values from 0.7 to 1.2.

    Computed by five Newton-Schulz iterations of a quintic polynomial, in bf16 on devices that are faster in it.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(fast_training_dtype(matrices.device) or matrices.dtype)
    wide = x if x.shape[1] <= x.shape[2] else x.mT
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)  # now no singular value is above 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    found: Tensor = wide if x.shape[1] <= x.shape[2] else wide.mT
    return found.to(matrices.dtype)


LONGEST_WARMUP, STEPS_FOR_EACH = 10, 10
"""The default warm-up: one step for each 10 of the run, at most 10 steps."""


def warmup_steps(total_steps: int, config: TrainConfig) -> int:
    """The number of warm-up steps in a run of `total_steps`."""
    if config.warmup is not None:
        return config.warmup
    return min(LONGEST_WARMUP, total_steps // STEPS_FOR_EACH)


def steps_before_fall(total_steps: int, config: TrainConfig) -> int:
    """The number of steps before the learning rate falls: those of the warm-up and, with `wsd`, of the level part.

    With `constant`, it never falls.
    """
    warmup = min(warmup_steps(total_steps, config), total_steps - 1)
    falling = {"constant": 0, "wsd": round(config.cooldown * total_steps)}.get(config.schedule, total_steps)
    return max(warmup, total_steps - falling)


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The learning rate of a step, which counts from 0: rises linearly in the warm-up, then falls to 0 or stays.

    `wsd` (warm-up, stable, decay: Hu et al. 2024, "MiniCPM") stays level, then falls linearly. With a cooldown of 1 it
    is `linear`.
    """
    warmup = min(warmup_steps(total_steps, config), total_steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    level = steps_before_fall(total_steps, config)
    done = max(0, step - level) / max(1, total_steps - level)
    factor = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.learning_rate * factor
