"""Parameters and floating-point operations by the shape, compared with torch's own counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gpt2cli.config import GPTConfig
from gpt2cli.model.anatomy import Parameters, count_parameters, flops_per_token
from gpt2cli.model.gpt import GPT
from gpt2cli.published import PUBLISHED

SHAPES = (
    GPTConfig(1, 1, 8, 5, 11),
    GPTConfig(3, 5, 35, 17, 101),
    GPTConfig(2, 3, 48, 37, 300, tied=False),
    GPTConfig(8, 6, 384, 512),
)


def part_of(name: str) -> str:
    """The part that a parameter of a GPT belongs to."""
    if name.startswith(("wte", "wpe", "lm_head")):
        return {"wte": "embedding", "wpe": "position", "lm_head": "head"}[name.split(".")[0]]
    return next(part for part, mark in (("attention", "attn."), ("mlp", "mlp."), ("norm", "ln_")) if mark in name)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_parts_are_those_of_the_tensors(shape: GPTConfig) -> None:
    with torch.device("meta"):
        model = GPT(shape)
    counts = dict.fromkeys(("embedding", "position", "attention", "mlp", "norm", "head"), 0)
    for name, tensor in model.named_parameters():
        counts[part_of(name)] += tensor.numel()
    assert count_parameters(shape) == Parameters(**counts)
    assert count_parameters(shape).total == sum(tensor.numel() for tensor in model.state_dict().values())


def test_the_published_models_have_the_published_numbers() -> None:
    totals = {name: count_parameters(model.config).total for name, model in PUBLISHED.items()}
    assert totals["gpt2"] == 124_439_808
    assert totals["gpt2-medium"] == 354_823_168
    assert totals["gpt2-large"] == 774_030_080
    assert totals["gpt2-xl"] == 1_557_611_200


@pytest.mark.parametrize("shape", SHAPES)
def test_a_forward_pass_takes_as_many_operations_as_torch_counts(shape: GPTConfig) -> None:
    with torch.device("meta"):
        model = GPT(shape).eval()
    for tokens in (1, shape.block_size):
        # the counter does not know the CPU's fused attention
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(torch.zeros(2, tokens, dtype=torch.int64, device="meta"))
        assert counter.get_total_flops() == 2 * tokens * flops_per_token(shape, tokens)
