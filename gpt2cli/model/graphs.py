"""Decoding as CUDA graphs: a GPU decodes a small model faster than Python can tell it what to do, kernel by kernel.

A graph is recorded once and replayed for every token, so nothing in it may change its shape or its place: keys and
values stand where they always stood, and attention goes over all of the cache, most of it masked. torch.compile
records it ("reduce-overhead"), as gpt-fast does.
"""

import torch
from torch import Tensor

from gpt2cli.errors import UsageError
from gpt2cli.model.gpt import GPT, KVCache


class StaticCache(KVCache):
    """A cache as long as the window, in which a single new token is looked up and stored without a change of shape.

    Where there are more new tokens than one, as in prompts, it is a KVCache.
    """

    def __init__(self, model: GPT, batch_size: int, capacity: int) -> None:
        super().__init__(model, batch_size, model.config.block_size)
        self.places = torch.zeros(batch_size, dtype=torch.long, device=self.k[0].device)  # those of the new tokens
        for tensor in (*self.k, *self.v, self.places):
            torch._dynamo.mark_static_address(tensor)

    def positions_and_mask(self, T: int) -> tuple[Tensor, Tensor | None]:
        if T > 1:
            return super().positions_and_mask(T)
        self.places.copy_(torch.tensor(self.lengths))
        seen = torch.arange(self.capacity, device=self.places.device) <= self.places[:, None]
        return self.places[:, None], seen[:, None, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if k.shape[2] > 1:
            return super().append(layer, k, v)
        index = self.places[:, None, None, None].expand_as(k)
        return self.k[layer].scatter_(2, index, k), self.v[layer].scatter_(2, index, v)

    def select(self, rows: list[int]) -> None:  # type: ignore[override]
        super().select(rows)
        self.places = self.places[: len(rows)].clone()


def compile_steps(model: GPT, backend: str = "inductor") -> None:
    """Have the model decode single tokens by a graph. The first tokens wait for it, half a minute or so.

    Raises UsageError if the model is not on a CUDA device; `backend` is for those who test this without one.
    """
    if model.ln_f.weight.device.type != "cuda" and backend == "inductor":
        raise UsageError("--compile is for CUDA: leave it out")
    mode = "reduce-overhead" if backend == "inductor" else None
    model.cache_type = StaticCache
    model.one_token = torch.compile(model.states, mode=mode, backend=backend, fullgraph=True, dynamic=False)
