"""The optimizers AdamW and Muon, and the schedule of the learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gpt2cli.config import TrainConfig
from gpt2cli.model.gpt import GPT

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""The defaults of Adam (Kingma & Ba 2014)."""
MOMENTUM = 0.95
"""The share of its momentum that Muon keeps in each step (Jordan et al. 2024)."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic polynomial: they move singular values between 0 and 1 near 1 in few iterations."""
NEWTON_SCHULZ_STEPS = 5
ADAM_RMS = 0.2
"""The usual root mean square of AdamW's updates. Muon's are scaled to it, so that both use the same learning rate."""

State = dict[Tensor, dict[str, Tensor]]


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017).

    Only matrices decay, biases and LayerNorms do not. Torch's fused kernel reads each weight, its gradient and its two
    moments once, and clips the gradient in the same pass. `torch.optim.AdamW` calls the same kernel, but first imports
    torch's compiler, which takes two seconds and 75 MB.

    state  `exp_avg`, `exp_avg_sq` and `step` (the moments and the number of steps) of each parameter after its first
           step
    """

    keys = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, parameters: Iterable[Tensor], config: TrainConfig, state: State) -> None:
        trained = list(parameters)
        self.decayed = [p for p in trained if p.dim() >= 2]
        self.plain = [p for p in trained if p.dim() < 2]
        self.weight_decay, self.clip, self.state = config.weight_decay, config.clip, state

    @torch.no_grad()
    def step(self, learning_rate: float, gradient_norm: float) -> None:
        """Update every parameter that has a gradient, and delete the gradients.

        The gradients are clipped: scaled so that their total norm, now `gradient_norm`, is at most `clip`.
        """
        for parameters, decay in ((self.decayed, self.weight_decay), (self.plain, 0.0)):
            moving: list[Tensor] = [p for p in parameters if p.grad is not None]
            if not moving:
                continue
            gradients = [p.grad for p in moving if p.grad is not None]
            states = [self.state.get(p) or self.begin(p) for p in moving]
            divisor = torch.tensor(max(1.0, gradient_norm / self.clip), device=moving[0].device)
            kernel_divides = moving[0].device.type != "mps"  # not verified on mps
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
        """The state of a parameter before its first step."""
        state = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        self.state[parameter] = state
        return state


class Muon:
    """Momentum with orthogonal updates, for the matrices of a model's blocks (Jordan et al. 2024).

    The update of a matrix is U V^T, where U S V^T is the singular value decomposition of its momentum: all directions
    change by the same amount. A `c_attn` counts as three matrices: query, key and value. The update is scaled to the
    size of AdamW's, as in "Muon is Scalable for LLM Training" (Liu et al. 2025), and the weight decay is decoupled.

    state  `momentum_buffer` of each matrix after its first step
    """

    keys = ("momentum_buffer",)

    def __init__(self, matrices: dict[str, Tensor], config: TrainConfig, state: State) -> None:
        self.parts = {matrix: 3 if "c_attn" in name and "lora" not in name else 1 for name, matrix in matrices.items()}
        self.weight_decay, self.clip, self.state = config.weight_decay, config.clip, state

    @torch.no_grad()
    def step(self, learning_rate: float, gradient_norm: float) -> None:
        """Update every matrix that has a gradient, and delete the gradients. Clips as `AdamW.step` does."""
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
        for shape in {piece.shape for piece in pieces}:  # all matrices of one shape in one batch
            alike = [i for i, piece in enumerate(pieces) if piece.shape == shape]
            directions = orthogonalize(torch.stack([pieces[i] for i in alike]))
            size = ADAM_RMS * math.sqrt(max(shape))
            torch._foreach_add_([places[i] for i in alike], list(directions.unbind()), alpha=-learning_rate * size)
        for parameter in moving:
            parameter.grad = None

    def begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state of a matrix before its first step."""
        state = {"momentum_buffer": torch.zeros_like(parameter)}
        self.state[parameter] = state
        return state


def orthogonalize(matrices: Tensor) -> Tensor:
    """Approximately U V^T for each matrix U S V^T in (n, rows, columns), with singular values from 0.7 to 1.2.

    Computed by five Newton-Schulz iterations of a quintic polynomial, in bf16 on CUDA.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.device.type == "cuda" else matrices
    wide = x if x.shape[1] <= x.shape[2] else x.mT
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)  # now no singular value is above 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = wide @ wide.mT
        wide = a * wide + (b * square + c * (square @ square)) @ wide
    found: Tensor = wide if x.shape[1] <= x.shape[2] else wide.mT
    return found.to(matrices.dtype)


class Optimizer:
    """Updates a model's parameters: by AdamW, or by Muon for the matrices of its blocks and AdamW for the rest.

    state  the tensors of each parameter after its first step, by the names in `keys`
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
        """The total norm of all gradients, a scalar."""
        norm: Tensor = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        return norm

    def step(self, learning_rate: float, gradient_norm: float) -> None:
        """Update every parameter that has a gradient, and delete the gradients.

        The gradients are clipped: scaled so that their total norm, now `gradient_norm`, is at most `clip`.
        """
        for part in self.parts:
            part.step(learning_rate, gradient_norm)


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The learning rate of a step, which counts from 0: rises linearly for `warmup` steps, then falls to 0 or stays."""
    warmup = min(config.warmup, total_steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[config.schedule]
    return config.learning_rate * factor
