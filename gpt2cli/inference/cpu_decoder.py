"""Inference by compiled loops on a CPU, over weights that are laid out in the order in which a processor reads them.

Decoding a token multiplies one row of activations by every matrix, and takes as long as it takes to read the matrices.
Activations are in fp32; where they are multiplied by integers, they have 12 to 16 bits. The import takes a while,
because it imports Numba.
"""

import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gpt2cli.inference.candidates import Found, candidates
from gpt2cli.inference.cpu.attention import key_size
from gpt2cli.inference.cpu.block import block, make_buffers, use_threads
from gpt2cli.inference.cpu.cache import CPUCache
from gpt2cli.inference.cpu.compiling import compile_lock, is_compiled, store
from gpt2cli.inference.cpu.elementwise import layer_norm
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu.matmul import MANY_ROWS, look_up, multiply
from gpt2cli.inference.cpu.thread_count import default_threads
from gpt2cli.inference.cpu.weight_packing import pack_block, pack_matrix, pack_norm
from gpt2cli.model.gpt import GPT
from gpt2cli.model.token_checks import check_shape

if TYPE_CHECKING:
    from gpt2cli.inference.gpu.cuda_graphs import GraphSessions
    from gpt2cli.model.packed_row import PackedRow


class CPUDecoder:
    """Implements `decoder.Decoder` for a CPU. Takes the weights out of `gpt`, which must not be used afterwards.

    The embedding and the head are in 8 bits if the blocks are in 4; if they share weights, these are stored once. After
    a process has run a decoder, its forks must not run one: they would inherit OpenMP's state without its threads.
    """

    device = "cpu"
    sessions: "GraphSessions | None" = None
    _turn = Lock()  # with some of Numba's threading layers, only one thread may run parallel loops at a time

    @torch.no_grad()
    def __init__(self, gpt: GPT, precision: str, threads: int | None = None) -> None:
        self.config, self.origin, self.precision = gpt.config, gpt.origin, precision
        self.threads = threads or default_threads()
        use_threads(self.threads)
        torch.set_num_threads(self.threads)  # Numba sets PyTorch's number too if both use the same OpenMP
        # a copy, so that the file that the weights are mapped from can be closed
        self._position_table = gpt.wpe.weight.float().clone().numpy()
        self._blocks, arena = [], Arena()
        for layer, plain in enumerate(gpt.h):
            self._blocks.append(pack_block(plain, precision, arena))  # type: ignore[arg-type]
            gpt.h[layer] = nn.Identity()  # frees the plain block before the next one is packed
        around = "int8" if precision == "int4" else precision
        self._token_table = pack_matrix(gpt.wte.weight, None, around, arena)
        self._head = self._token_table
        if gpt.lm_head is not None:
            self._head = pack_matrix(gpt.lm_head.weight, None, around, arena)
        self._norm = pack_norm(gpt.ln_f)
        self._is_warm = False

    def __call__(self, idx: Any) -> NDArray[np.float32]:
        idx = np.asarray(idx)
        check_shape(idx.shape)
        return self.head(self.hidden(idx, self.new_cache(*idx.shape)))

    def hidden(self, idx: NDArray[np.int64], sight: "CPUCache | PackedRow") -> NDArray[np.float32]:
        """As in `Decoder`. Raises IndexError for an unknown token."""
        (B, T), C, config = idx.shape, self.config.n_embd, self.config
        ids = idx.ravel()
        if ids.min() < 0 or ids.max() >= config.vocab_size:
            raise IndexError(f"tokens go from 0 to {config.vocab_size - 1}")
        if not self._is_warm:
            self.warm_up()
        positions = sight.token_positions((B, T), config.block_size).ravel()
        with self._turn:
            use_threads(self.threads)  # it holds for the calling thread only
            buffers = make_buffers(len(ids), C)
            tokens = look_up(self._token_table, ids)[:, :C]
            buffers.x[: len(ids), :C] = tokens + self._position_table[positions]
            pieces, memory = sight.pieces(T), sight.memory(config, key_size(config.head_size), np.float32)
            for weights, (keys, values) in zip(self._blocks, memory, strict=True):
                block(buffers, pieces, keys, values, weights, config.layer_norm_epsilon, T)
            layer_norm(buffers.x, self._norm, config.layer_norm_epsilon, buffers.normed)
        states: NDArray[np.float32] = buffers.normed[: len(ids), :C].reshape(B, T, C)
        return states

    def head(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = hidden.reshape(-1, hidden.shape[-1])
        with self._turn:
            use_threads(self.threads)
            logits: NDArray[np.float32] = multiply(self._head, rows, hidden.shape[-2])
        return logits[: len(rows), : self.config.vocab_size].reshape(*hidden.shape[:-1], self.config.vocab_size)

    def candidates(
        self, logits: NDArray[np.float32], count: int, seen: Sequence[NDArray[np.int64]] = (), penalty: float = 1.0
    ) -> Found:
        return candidates(logits, count, seen, penalty)

    def new_cache(self, rows: int, capacity: int) -> CPUCache:
        return CPUCache(self.config, rows, capacity, key_size=key_size(self.config.head_size), dtype=np.float32)

    def weight_bytes(self) -> int:
        matrices = [matrix for block in self._blocks for matrix in block] + [self._norm, self._head]
        parts = (matrix[:-1] if isinstance(matrix, tuple) else [matrix] for matrix in matrices)  # all but its `step`
        return sum(part.nbytes for matrix in parts for part in matrix)

    def compiling_note(self) -> str | None:
        if is_compiled(self.precision):
            return None
        if (problem := store().problem) is None:
            return f"compiling the {self.precision} loops for this processor, only this time: ten seconds or more"
        told = f"compiling the {self.precision} loops for this processor, ten seconds or more in every run"
        return f"{told}: they cannot be kept ({problem}); set NUMBA_CACHE_DIR to a directory that you can write to"

    def prepare(self, note: Callable[[str], None]) -> float:
        if text := self.compiling_note():
            note(text)
            self.warm_up()
        start = time.perf_counter()
        self.warm_up()
        return time.perf_counter() - start

    def warm_up(self) -> None:
        """Compile the loops of a step, or read them from the store. The first step does it if nothing else does."""
        self._is_warm = True  # first, because the step below would call this method again
        with compile_lock(self.precision):
            self([[0]])
            first = self._blocks[0].attn_c_attn
            multiply(first, np.zeros((MANY_ROWS, self.config.n_embd), np.float32), MANY_ROWS)  # as for a long prompt
