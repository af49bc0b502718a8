"""Low-rank adaptation: training small matrices beside the frozen weights of a model.

"LoRA: Low-Rank Adaptation of Large Language Models", Hu et al. 2021. The update of a linear layer has a low rank r:
W + alpha/r * B A, with A (r, in) and B (out, r). Only A and B are trained. Afterwards they can be merged into W, and
the model is a plain GPT again.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.config import ADAPTED, LoRAConfig
from gpt2cli.model.gpt import GPT


class LoRALinear(nn.Module):
    """A frozen linear layer and its trainable update: y = x W^T + b + alpha/r * dropout(x) A^T B^T (section 4.1).

    It has the layer's own weight and bias, not copies, under the same names.
    """

    def __init__(self, linear: nn.Linear, config: LoRAConfig, dropout: float = 0.0) -> None:
        super().__init__()
        linear.requires_grad_(False)
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = config.alpha / config.rank
        self.dropout = dropout
        # in any type of W: the optimizer's small steps need fp32
        device, dtype = linear.weight.device, torch.float32
        self.lora_A = nn.Parameter(torch.empty(config.rank, linear.in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, config.rank, device=device, dtype=dtype))
        # as in the paper's code and PEFT: B = 0 makes training start from the base model
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., out) from x (..., in)."""
        y = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        low = F.linear(x, self.lora_A.to(x.dtype)) * self.scale  # (..., r): the smallest place to scale
        return y + F.linear(low, self.lora_B.to(low.dtype))

    def to_dtype(self, dtype: torch.dtype) -> None:
        """Convert the frozen layer to this type; the adapter stays in fp32."""
        self.weight.data, self.bias.data = self.weight.data.to(dtype), self.bias.data.to(dtype)

    def update(self) -> Tensor:
        """The adapter's update of W, (out, in) in fp32."""
        return (self.lora_B.float() * self.scale) @ self.lora_A.float()


def add_lora(model: GPT, config: LoRAConfig, dropout: float = 0.0) -> None:
    """Freeze the model and add an adapter to every linear layer of its blocks, in place.

    The results of the model stay the same. The initial values of A come from torch's global random generator.
    """
    model.requires_grad_(False)
    for block in model.h:
        for name in ADAPTED:
            linear = block.get_submodule(name)
            if not isinstance(linear, nn.Linear):
                raise ValueError(f"{name} is a {type(linear).__name__}, not a linear layer: merge its adapter first")
            block.set_submodule(name, LoRALinear(linear, config, dropout).train(linear.training))


@torch.no_grad()
def merge_lora(model: GPT) -> None:
    """Add each adapter's update to its weight and remove the adapter, in place. All weights become trainable.

    Weights that are mapped from a file change in memory only, because files are mapped copy-on-write.
    """
    for name, layer in list(_adapters(model)):
        layer.weight += layer.update()  # computed in fp32 and rounded once to the type of W
        out_features, in_features = layer.weight.shape
        linear = nn.Linear(in_features, out_features, device="meta")
        linear.weight, linear.bias = layer.weight, layer.bias
        model.set_submodule(name, linear.train(layer.training))
    model.requires_grad_(True)


@torch.no_grad()
def merged_state(model: GPT) -> dict[str, Tensor]:
    """The state dict that the model would have after `merge_lora`, without a change to the model.

    Only weights with an adapter are copies. Without adapters, this is the model's own state dict.
    """
    state: dict[str, Tensor] = model.state_dict()
    for name, layer in _adapters(model):
        del state[f"{name}.lora_A"], state[f"{name}.lora_B"]
        state[f"{name}.weight"] = (layer.weight + layer.update()).to(layer.weight.dtype)
    return state


def lora_state(model: GPT) -> dict[str, Tensor]:
    """The adapters' tensors, not copied: `h.0.attn.c_attn.lora_A` (r, in), `h.0.attn.c_attn.lora_B` (out, r), ..."""
    parts = ("lora_A", "lora_B")
    return {f"{name}.{part}": getattr(layer, part).detach() for name, layer in _adapters(model) for part in parts}


def _adapters(model: GPT) -> Iterator[tuple[str, LoRALinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear))
