"""Inference by compiled loops on a CPU, over weights that are laid out in the order in which a processor reads them.

Decoding a token multiplies one row of activations by every matrix, and takes as long as it takes to read the matrices.
Activations are in fp32; where they are multiplied by integers, they have 12 to 16 bits. Needs no torch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt2cli.config import GPTConfig
from gpt2cli.inference.candidates import Found, candidates
from gpt2cli.inference.cpu.attention_tasks import key_size
from gpt2cli.inference.cpu.cache import CPUCache, CPUCacheRows
from gpt2cli.inference.cpu.compiling import is_compiled, loops, store
from gpt2cli.inference.cpu.packed_layout import look_up, packed_matrix
from gpt2cli.inference.cpu.panel_sizes import MANY_ROWS
from gpt2cli.inference.cpu.pass_table import cache_type
from gpt2cli.inference.cpu.passes import Passes
from gpt2cli.inference.cpu.thread_count import default_threads
from gpt2cli.model.origin import Origin
from gpt2cli.model.token_checks import check_shape

if TYPE_CHECKING:
    from gpt2cli.inference.gpu.cuda_graphs import GraphSessions
    from gpt2cli.model.packed_row import PackedRow

PIECE_TOKENS = 256
"""Tokens of a long prompt that are read in one pass. Between two passes, Python reacts to Ctrl-C."""


class CPUDecoder:
    """Implements `decoder.Decoder` for a CPU, over the arrays of `weight_packing.pack_model`."""

    device = "cpu"
    sessions: "GraphSessions | None" = None

    def __init__(
        self,
        config: GPTConfig,
        origin: Origin,
        precision: str,
        arrays: Mapping[str, NDArray[Any]],
        threads: int | None = None,
    ) -> None:
        self.config, self.origin, self.precision = config, origin, precision
        self.threads = threads or default_threads()
        self._arrays, self._tokens = arrays, packed_matrix(arrays, "wte")
        self._head = "wte" if config.tied else "lm_head"
        self._made: Passes | None = None

    def __call__(self, idx: Any) -> NDArray[np.float32]:
        idx = np.asarray(idx)
        check_shape(idx.shape)
        return self.head(self.hidden(idx, self.new_cache(*idx.shape)))

    def hidden(
        self, idx: NDArray[np.int64], sight: "CPUCacheRows | PackedRow", whole: int | None = None
    ) -> NDArray[np.float32]:
        """As in `Decoder`. Raises IndexError for an unknown token."""
        if idx.min() < 0 or idx.max() >= self.config.vocab_size:
            raise IndexError(f"tokens go from 0 to {self.config.vocab_size - 1}")
        B, T = idx.shape
        whole = whole or T
        if not isinstance(sight, CPUCacheRows) or T <= PIECE_TOKENS:
            return self._pass(idx, sight, whole)
        sight.check_room(T, self.config.block_size)
        step = max(MANY_ROWS, PIECE_TOKENS // B)
        parts = [self._pass(idx[:, start : start + step], sight, whole) for start in range(0, T, step)]
        return np.concatenate(parts, axis=1)

    def _pass(self, idx: NDArray[np.int64], sight: "CPUCacheRows | PackedRow", whole: int) -> NDArray[np.float32]:
        """The hidden states of consecutive tokens, which are a part of sequences of `whole` new tokens."""
        (B, T), config = idx.shape, self.config
        positions = sight.token_positions((B, T), config.block_size).ravel()
        x = look_up(self._tokens, idx.ravel())[:, : config.n_embd] + self._arrays["wpe"][positions]
        memory = sight.memory(config, key_size(config.head_size), cache_type(self.precision))
        return self._passes.forward(x, sight.pieces(T), memory, whole >= MANY_ROWS).reshape(B, T, config.n_embd)

    def head(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = self._passes.head(hidden.reshape(-1, hidden.shape[-1]))
        return logits[:, : self.config.vocab_size].reshape(*hidden.shape[:-1], self.config.vocab_size)

    def to_host(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits

    def candidates(
        self, logits: NDArray[np.float32], count: int, seen: Sequence[NDArray[np.int64]] = (), penalty: float = 1.0
    ) -> Found:
        return candidates(logits, count, seen, penalty)

    def new_cache(self, rows: int, capacity: int) -> CPUCache:
        size, dtype = key_size(self.config.head_size), cache_type(self.precision)
        return CPUCache(self.config, rows, capacity, key_size=size, dtype=dtype)

    def weight_bytes(self) -> int:
        parts = ("weights", "groups", "scale", "bias")  # a step uses all of a matrix but `step`
        read = [name for name in self._arrays if name.startswith(("h.", "ln_f", f"{self._head}."))]
        norms = [name for name in read if "ln_" in name]
        matrices = [name for name in read if name.endswith(tuple(f".{part}" for part in parts))]
        return sum(self._arrays[name].nbytes for name in norms + matrices)

    def compiling_note(self) -> str | None:
        if is_compiled(self.precision):
            return None
        what = f"compiling the {self.precision} loops for this processor"
        if (problem := store().problem) is None:
            return f"{what}, only this time"
        return f"{what}, in every run: they cannot be kept ({problem}); set GPT2CLI_CACHE to another directory"

    def prepare(self, note: Callable[[str], None]) -> float:
        if text := self.compiling_note():
            note(text)
            loops(self.precision)
        start = time.perf_counter()
        self([[0]])
        return time.perf_counter() - start

    @property
    def _passes(self) -> Passes:
        """Made by the first pass, because the loops may have to be compiled."""
        if self._made is None:
            self._made = Passes(self.config, self.precision, self._arrays, self.threads)
        return self._made
