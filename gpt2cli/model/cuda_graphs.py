"""Decoding as CUDA graphs: a GPU decodes a small model faster than Python can tell it what to do, kernel by kernel.

A graph is captured once and replayed for every token, so everything in it stays in its place: tokens, lengths, cache.
The next token is chosen in the graph too and becomes its next input, so the host need not wait for one token before it
asks for the next: it asks for bursts, and reads one while the GPU works on another.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.model.gpt import GPT, KVCache

BURST = 16
"""Tokens that each row gets before the host looks at them."""
UNROLLED = 8
"""Steps in the larger of two graphs: between two graphs a GPU pauses for some microseconds."""
ROUND = 128
"""The cache's capacity is a multiple of it, so that few capacities occur."""

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits (B, V) and uniform numbers (B,) to the next tokens (B,) and the largest logits (B,), on the GPU."""


class State:
    """What a step reads and writes, always in the same place. B rows, L layers, S tokens of capacity.

    tokens, lengths  (B,)       each row's newest token, which is not in the cache, and how many are
    keys, values     (L, B, H, S, D)
    logits           (B, V)     without those of rows that pad the table
    slots            (B,)       how many tokens of this burst are chosen
    drawn, largest   (BURST, B) these tokens, and the largest logit of each
    uniform          (BURST, B) the numbers that they are drawn with
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


class PlainStep(KVCache):
    """A step by PyTorch's own kernels, for GPUs without Triton: attention goes over all of the cache, masked."""

    def __init__(self, model: GPT, state: State) -> None:
        self.model, self.state = model, state
        self.places = torch.arange(state.keys.shape[3], device=state.keys.device)

    def __call__(self) -> None:
        state = self.state
        mask = (self.places <= state.lengths[:, None])[:, None, None]
        hidden = self.model.states(state.tokens[:, None], state.lengths[:, None], mask, self, None, None, None)
        state.logits.copy_(self.model.head(hidden)[:, 0, : state.logits.shape[1]])

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        index = self.state.lengths.long()[:, None, None, None].expand_as(k)
        keys, values = self.state.keys[layer], self.state.values[layer]
        return keys.scatter_(2, index, k), values.scatter_(2, index, v)


class Burst:
    """Tokens on their way from the GPU."""

    def __init__(self, results: Tensor, steps: int, ready: "torch.cuda.Event | None") -> None:
        self._results, self._steps, self._ready = results, steps, ready

    def read(self) -> Iterator[tuple[list[int], list[float]]]:
        """Wait for them. Per step: each row's token, and the largest logit that it was chosen by."""
        if self._ready is not None:
            self._ready.synchronize()
        drawn, largest = self._results[0], self._results[1].view(torch.float32)
        return zip(drawn[: self._steps].tolist(), largest[: self._steps].tolist(), strict=True)


class Decoder:
    """Decodes `rows` rows together. With `sampling`, tokens are chosen in the graph, else there are logits alone.

    The choice is by Triton kernels if those can do it, otherwise by `choose`.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: GPT,
        rows: int,
        capacity: int,
        sampling: SamplingConfig | None,
        choose: Choose | None,
        fused: bool,
    ) -> None:
        self.capacity = capacity
        self.state = State(model, rows, capacity)
        self.lengths = [0] * rows  # as the host counts; on the GPU they end at the cache's last place
        self._chooses_in_step = False
        if fused:
            from gpt2cli.model.fused_step import FusedStep, chooses

            self._chooses_in_step = sampling is not None and chooses(sampling)
            self._run: Callable[[], None] = FusedStep(model, self.state, sampling if self._chooses_in_step else None)
        else:
            self._run = PlainStep(model, self.state)
        self._choose = choose if sampling is not None else None
        on_gpu = self.state.tokens.is_cuda
        self._results = [torch.zeros_like(self.state.results, device="cpu", pin_memory=on_gpu) for _ in range(2)]
        self._uniform = [torch.zeros_like(self.state.uniform, device="cpu", pin_memory=on_gpu) for _ in range(2)]
        self._turn = 0
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if on_gpu:
            self._capture([UNROLLED, 1] if sampling is not None else [1])

    @torch.inference_mode()
    def load(self, cache: KVCache, tokens: Sequence[int]) -> None:
        """Begin with the keys and values of `cache`, and each row's token that comes next."""
        self.lengths = list(cache.lengths)
        longest = max(self.lengths)
        for layer, (k, v) in enumerate(zip(cache.k, cache.v, strict=True)):
            self.state.keys[layer][:, :, :longest] = k[:, :, :longest]
            self.state.values[layer][:, :, :longest] = v[:, :, :longest]
        self.state.tokens.copy_(torch.tensor(tokens))
        self.state.lengths.copy_(torch.tensor(self.lengths))

    @torch.inference_mode()
    def replace(self, row: int, cache: KVCache | None) -> None:
        """Put the one row of `cache` in the place of a row's keys and values; None: nothing."""
        self.lengths[row] = length = 0 if cache is None else cache.lengths[0]
        for layer in range(len(self.state.keys) if cache is not None else 0):
            self.state.keys[layer, row, :, :length] = cache.k[layer][0, :, :length]  # type: ignore[union-attr]
            self.state.values[layer, row, :, :length] = cache.v[layer][0, :, :length]  # type: ignore[union-attr]
        self.state.lengths[row] = length

    @torch.inference_mode()
    def launch(self, steps: int, uniform: Tensor | None = None) -> Burst:
        """Have every row decode `steps` tokens, at most BURST, drawn with `uniform` (steps, B). Does not wait for them.

        At most two bursts may be unread. A row that has filled the cache writes over its last place.
        """
        state, self._turn = self.state, 1 - self._turn
        if uniform is not None:
            host = self._uniform[self._turn]
            host[:steps] = uniform
            state.uniform.copy_(host, non_blocking=True)
        state.slots.zero_()
        self._replay(steps)
        self.lengths = [length + steps for length in self.lengths]
        results = self._results[self._turn]
        results.copy_(state.results, non_blocking=True)
        ready = None
        if state.tokens.is_cuda:
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
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
        if self._choose is not None:
            at = state.slots[:1].long()
            tokens, largest = self._choose(state.logits, state.uniform.index_select(0, at)[0])
            state.tokens.copy_(tokens)
            state.drawn.index_copy_(0, at, state.tokens[None])
            state.largest.index_copy_(0, at, largest.float()[None])
            state.slots += 1
        state.lengths.add_(1).clamp_(max=self.capacity - 1)

    def _capture(self, sizes: Sequence[int]) -> None:
        """Run a step, so that all kernels are compiled, and then capture graphs of so many steps."""
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


class Graphs:
    """The decoders of a model. The last one is kept, for later texts in the same number of rows."""

    def __init__(self, model: GPT, fused: bool) -> None:
        self._model, self._fused = model, fused
        self._kept: tuple[object, Decoder] | None = None

    @contextmanager
    def decoder(
        self, rows: int, capacity: int, sampling: SamplingConfig | None, choose: Choose | None
    ) -> Iterator[Decoder]:
        """A decoder for at least so many tokens, which nobody else uses at the same time."""
        s = sampling
        key = rows, s and (s.temperature, s.top_k, s.top_p, s.min_p)
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == key and kept[1].capacity >= capacity:
            found = kept[1]
        else:
            del kept  # its memory is needed
            capacity = min(self._model.config.block_size, -(-capacity // ROUND) * ROUND)
            found = Decoder(self._model, rows, capacity, sampling, choose, self._fused)
        try:
            yield found
        finally:
            self._kept = key, found


def compile_steps(model: GPT, fused: bool | None = None) -> None:
    """Have `generate` decode by graphs. The first tokens wait some seconds for them.

    `fused` says whether by kernels of our own; None: if this machine can. Raises UsageError if the model is not on a
    CUDA device, unless `fused` is given: then steps run one by one, for those who test this without one.
    """
    device = model.wte.weight.device
    if device.type != "cuda" and fused is None:
        raise UsageError("--compile is for CUDA: leave it out")
    if fused is None:
        fused = can_fuse(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # as some checkpoints' matrices are not
    model.graphs = Graphs(model, fused)


def can_fuse(model: GPT) -> bool:
    """Whether the Triton kernels can run this model on its device."""
    layers = [part for part in model.h.modules() if hasattr(part, "weight") and not isinstance(part, nn.LayerNorm)]
    return (
        find_spec("triton") is not None
        and torch.cuda.get_device_capability(model.wte.weight.device) >= (8, 0)
        and all(type(layer) is nn.Linear for layer in layers)
        and len({parameter.dtype for parameter in model.parameters()}) == 1
    )
