"""A model with weights set by hand, which continues a text that repeats itself.

It has the two heads of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". The previous-token head
0.1 copies each token's code to the next token. The induction head 1.2 of a token looks for a place whose previous token
was the same, and copies the code of the token there: this is the prediction. All other heads and the MLPs are zero.

Every token has a code of 64 numbers, -1 or 1, whose sum is 0; the codes of two tokens have a small inner product. The
residual stream has three subspaces: the token's code, the previous token's code, and the position. Position i is 32
points of a circle, which one step turns by 32 angles: the query turned back by one step is the key of position i - 1.
As the codes have equal norms and their sums are 0, a LayerNorm hardly does more than divide by the same number.
"""

import math

import torch
from torch import Tensor

from gpt2cli.config import GPTConfig
from gpt2cli.model.gpt import GPT

SIZE = 64  # of each subspace and each head
TOKEN, PREVIOUS, POSITION = (slice(n * SIZE, (n + 1) * SIZE) for n in range(3))
SHAPE = GPTConfig(n_layer=2, n_head=3, n_embd=3 * SIZE, block_size=128, vocab_size=50257)
PREVIOUS_TOKEN_HEAD, INDUCTION_HEAD = (0, 1), (1, 2)
FOCUS = 6.0  # the factor of queries: attention goes to the best match alone
WEIGHT_OF_PREDICTION = 4.0  # against the token's own code, which would predict the token again


@torch.no_grad()
def planted_model() -> GPT:
    """The model, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model = GPT(SHAPE)
    for block in model.h:
        for parameter in [*block.attn.parameters(), *block.mlp.parameters()]:
            parameter.zero_()
    model.wte.weight.zero_()
    model.wpe.weight.zero_()
    order = torch.rand(SHAPE.vocab_size, SIZE, generator=generator).argsort(dim=1)
    model.wte.weight[:, TOKEN] = torch.where(order < SIZE // 2, -1.0, 1.0)
    angles = torch.rand(SIZE // 2, generator=generator) * math.pi
    turns = torch.arange(SHAPE.block_size)[:, None] * angles
    model.wpe.weight[:, POSITION] = torch.cat([turns.cos(), turns.sin()], dim=1)

    cos, sin = angles.cos().diag(), angles.sin().diag()
    back = torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])
    one = torch.eye(SIZE)
    _set_head(model, PREVIOUS_TOKEN_HEAD, query=(POSITION, back), key=POSITION, value=TOKEN, output=(PREVIOUS, one))
    _set_head(
        model,
        INDUCTION_HEAD,
        query=(TOKEN, one),
        key=PREVIOUS,
        value=TOKEN,
        output=(TOKEN, WEIGHT_OF_PREDICTION * one),
    )
    return model.eval()


def _set_head(
    model: GPT,
    name: tuple[int, int],
    *,
    query: tuple[slice, Tensor],
    key: slice,
    value: slice,
    output: tuple[slice, Tensor],
) -> None:
    """Let a head read its query, key and value from these subspaces, and write to that of the output."""
    layer, head = name
    attention = model.h[layer].attn
    rows = slice(head * SIZE, (head + 1) * SIZE)
    q, k, v = attention.c_attn.weight.chunk(3)
    place, matrix = query
    q[rows, place] = FOCUS * matrix
    k[rows, key] = torch.eye(SIZE)
    v[rows, value] = torch.eye(SIZE)
    place, matrix = output
    attention.c_proj.weight[place, rows] = matrix
