"""Decoding steps as CUDA graphs: each is captured once and replayed for every token.

All tensors of a graph keep their addresses: tokens, lengths, cache. The graph also chooses the next token and writes it
to its own input. So the host can launch several steps, a burst, without waiting for a token. It reads one burst while
the GPU computes the next. The number of rows is fixed: a row whose text has ended is still computed, and ignored.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.inference.gpu.torch_sampling import choose_on_device
from gpt2cli.model.cache import KVCache
from gpt2cli.model.gpt import GPT, Causal

BURST = 16
"""The most steps in a burst."""
UNROLLED = 8
"""Steps in the larger of the two graphs. Between two graphs, a GPU is idle for some microseconds."""
ROUND = 128
"""The cache's capacity is rounded up to a multiple of this, so that texts of similar length share a session."""


class State:
    """The tensors that a step reads and writes, at fixed addresses. B rows, L layers, S tokens of capacity.

    tokens           (B,)       each row's newest token, which is not in the cache yet
    lengths          (B,)       the number of tokens in the cache
    keys, values     (L, B, H, S, D)
    logits           (B, V)     without those of rows that pad the embedding table
    slots            (B,)       the number of tokens chosen in this burst
    drawn, largest   (BURST, B) these tokens, and the largest logit of each
    uniform          (BURST, B) the random numbers that they are drawn with
    """

    def __init__(self, model: GPT, rows: int, capacity: int) -> None:
        config, weight = model.config, model.wte.weight
        device = weight.device
        self.tokens, self.lengths, self.slots = torch.zeros(3, rows, dtype=torch.int32, device=device).unbind()
        self.results = torch.zeros(2, BURST, rows, dtype=torch.int32, device=device)  # one tensor, one copy
        self.drawn, self.largest = self.results[0], self.results[1].view(torch.float32)
        self.uniform = torch.zeros(BURST, rows, dtype=torch.float64, device=device)
        shape = (config.n_layer, rows, config.n_head, capacity, config.head_size)
        # zeros, because what masked attention multiplies by 0 must be finite
        self.keys, self.values = (torch.zeros(shape, dtype=weight.dtype, device=device) for _ in range(2))
        self.logits = torch.zeros(rows, min(config.vocab_size, VOCAB_SIZE), device=device)


class PlainStep(Causal):
    """A step by PyTorch's own kernels, where Triton's cannot run. Attention reads the whole cache, with a mask."""

    def __init__(self, model: GPT, state: State) -> None:
        self.model, self.state = model, state
        self.places = torch.arange(state.keys.shape[3], device=state.keys.device)

    def __call__(self) -> None:
        state = self.state
        self.mask = (self.places <= state.lengths[:, None])[:, None, None]
        hidden = self.model.hidden(state.tokens[:, None], self)
        state.logits.copy_(self.model.head(hidden)[:, 0, : state.logits.shape[1]])

    def positions(self, idx: Tensor, window: int) -> Tensor:
        return self.state.lengths[:, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        index = self.state.lengths.long()[:, None, None, None].expand_as(k)
        keys = self.state.keys[layer].scatter_(2, index, k)
        values = self.state.values[layer].scatter_(2, index, v)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=self.mask)


class Burst:
    """The tokens of one launch, which the GPU may still be computing."""

    def __init__(self, results: Tensor, steps: int, ready: "torch.cuda.Event | None") -> None:
        self._results, self._steps, self._ready = results, steps, ready

    def read(self) -> Iterator[tuple[list[int], list[float]]]:
        """Wait for the tokens. Per step: each row's token, and each row's largest logit."""
        if self._ready is not None:
            self._ready.synchronize()
        drawn, largest = self._results[0], self._results[1].view(torch.float32)
        return zip(drawn[: self._steps].tolist(), largest[: self._steps].tolist(), strict=True)


class GraphSession:
    """Decodes `rows` rows together. With `sampling`, the graph chooses tokens. Without, it ends with the logits.

    Triton kernels choose the tokens if they support `sampling`, otherwise `choose_on_device` does.
    """

    @torch.inference_mode()
    def __init__(self, model: GPT, rows: int, capacity: int, sampling: SamplingConfig | None, fused: bool) -> None:
        self.capacity = capacity
        self.state = State(model, rows, capacity)
        self.lengths = [0] * rows  # counted by the host; the GPU's own stop at the cache's last place
        self._chooses_in_step = False
        if fused:
            from gpt2cli.inference.gpu.fused_step import FusedStep, chooses

            self._chooses_in_step = sampling is not None and chooses(sampling)
            self._run: Callable[[], None] = FusedStep(model, self.state, sampling if self._chooses_in_step else None)
        else:
            self._run = PlainStep(model, self.state)
        self._sampling = sampling
        on_gpu = self.state.tokens.is_cuda
        self._results = [torch.zeros_like(self.state.results, device="cpu", pin_memory=on_gpu) for _ in range(2)]
        self._uniform = [torch.zeros_like(self.state.uniform, device="cpu", pin_memory=on_gpu) for _ in range(2)]
        self._turn = 0
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if on_gpu:
            with torch.cuda.device(self.state.tokens.device):  # kernels and streams are those of the current device
                self._capture([UNROLLED, 1] if sampling is not None else [1])

    @torch.inference_mode()
    def load(self, cache: KVCache, tokens: Sequence[int]) -> None:
        """Start from the keys and values of `cache`, and the token of each row that follows them."""
        self.lengths = list(cache.lengths)
        longest = max(self.lengths)
        self.state.keys.zero_()  # an earlier text may have left NaN
        self.state.values.zero_()
        for layer, (k, v) in enumerate(zip(cache.k, cache.v, strict=True)):
            self.state.keys[layer][:, :, :longest] = k[:, :, :longest]
            self.state.values[layer][:, :, :longest] = v[:, :, :longest]
        self.state.tokens.copy_(torch.tensor(tokens))
        self.state.lengths.copy_(torch.tensor(self.lengths))

    @torch.inference_mode()
    def replace(self, row: int, cache: KVCache) -> None:
        """Replace a row's keys and values by those of the only row of `cache`, which may be empty."""
        self.lengths[row] = length = cache.lengths[0]
        self.state.keys[:, row] = 0  # an earlier text may have left NaN
        self.state.values[:, row] = 0
        for layer, (k, v) in enumerate(zip(cache.k, cache.v, strict=True)):
            self.state.keys[layer, row, :, :length] = k[0, :, :length]
            self.state.values[layer, row, :, :length] = v[0, :, :length]
        self.state.lengths[row] = length

    @torch.inference_mode()
    def copy_row(self, source: int, target: int) -> None:
        """Replace a row's keys and values by those of another row."""
        self.state.keys[:, target] = self.state.keys[:, source]
        self.state.values[:, target] = self.state.values[:, source]
        self.lengths[target] = self.lengths[source]
        self.state.lengths[target] = self.state.lengths[source]

    @torch.inference_mode()
    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Set the number of tokens in each row."""
        self.lengths = list(lengths)
        self.state.lengths.copy_(torch.tensor(lengths).clamp(max=self.capacity - 1))

    @torch.inference_mode()
    def launch(self, steps: int, uniform: NDArray[np.float64] | None = None) -> Burst:
        """Decode `steps` tokens in every row, at most BURST, drawn with `uniform` (steps, B). Does not wait for them.

        At most two bursts may be unread. A row whose cache is full overwrites its last position.
        """
        state, self._turn = self.state, 1 - self._turn
        if uniform is not None:
            host = self._uniform[self._turn]
            host[:steps] = torch.from_numpy(uniform)
            state.uniform.copy_(host, non_blocking=True)
        state.slots.zero_()
        self._replay(steps)
        self.lengths = [length + steps for length in self.lengths]
        results = self._results[self._turn]
        results.copy_(state.results, non_blocking=True)
        ready = None
        if state.tokens.is_cuda:
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(torch.cuda.current_stream(state.tokens.device))
        return Burst(results, steps, ready)

    @torch.inference_mode()
    def logits_after(self, tokens: Sequence[int]) -> Tensor:
        """The logits (B, V) after each row's next token."""
        self.state.tokens.copy_(torch.tensor(tokens))
        self._replay(1)
        self.lengths = [length + 1 for length in self.lengths]
        return self.state.logits

    def _replay(self, steps: int) -> None:
        for size, graph in self._graphs.items():  # the larger one first
            for _ in range(steps // size):
                graph.replay()
            steps %= size
        for _ in range(steps):  # where there are no graphs
            self._step()

    def _step(self) -> None:
        self._run()
        if self._chooses_in_step:
            return
        state = self.state
        if self._sampling is not None:
            at = state.slots[:1].long()
            tokens, largest = choose_on_device(state.logits, state.uniform.index_select(0, at)[0], self._sampling)
            state.tokens.copy_(tokens)
            state.drawn.index_copy_(0, at, state.tokens[None])
            state.largest.index_copy_(0, at, largest.float()[None])
            state.slots += 1
        state.lengths.add_(1).clamp_(max=self.capacity - 1)

    def _capture(self, sizes: Sequence[int]) -> None:
        """Run a step, which compiles all kernels. Then capture one graph for each of these numbers of steps."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        for size in sizes:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(size):
                    self._step()
            self._graphs[size] = graph


class GraphSessions:
    """The sessions of a model. The last one is kept for later texts with as many rows and the same sampling."""

    def __init__(self, model: GPT, fused: bool) -> None:
        self._model, self._fused = model, fused
        self._kept: tuple[object, GraphSession] | None = None

    @contextmanager
    def session(self, rows: int, capacity: int, sampling: SamplingConfig | None) -> Iterator[GraphSession]:
        """A session of at least this capacity, which no other caller uses at the same time."""
        # without the fields that a step does not depend on
        key = rows, sampling and replace(sampling, max_new_tokens=0, seed=None, stop=(), num_samples=1)
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == key and kept[1].capacity >= capacity:
            found = kept[1]
        else:
            del kept  # its memory is needed
            capacity = min(self._model.config.block_size, -(-capacity // ROUND) * ROUND)
            found = GraphSession(self._model, rows, capacity, sampling, self._fused)
        try:
            yield found
        finally:
            self._kept = key, found
