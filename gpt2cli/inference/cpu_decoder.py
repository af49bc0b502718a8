"""Inference by compiled loops on a CPU, over weights that are laid out in the order in which a processor reads them.

Decoding a token multiplies one row of activations by every matrix, and takes as long as it takes to read the matrices.
Activations are in fp32; where they are multiplied by integers, they have 12 to 16 bits. The import takes a while,
because it imports Numba.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt2cli.inference.cpu.attention import key_size
from gpt2cli.inference.cpu.block import Weights, block, make_buffers, use_threads
from gpt2cli.inference.cpu.compiling import compile_lock, is_compiled, store
from gpt2cli.inference.cpu.elementwise import layer_norm
from gpt2cli.inference.cpu.matmul import MANY_ROWS, look_up, multiply
from gpt2cli.inference.cpu.packed_layout import MATRICES
from gpt2cli.inference.cpu.weight_packing import pack_model, packed_matrix
from gpt2cli.inference.gpu.cuda_graphs import GraphSessions
from gpt2cli.model.cache import KVCache
from gpt2cli.model.gpt import GPT, check_shape
from gpt2cli.model.packed_row import PackedRow


class CPUDecoder:
    """Implements `decoder.Decoder` for a CPU. Takes the weights out of `gpt`, which must not be used afterwards.

    The embedding and the head are in 8 bits if the blocks are in 4; if they share weights, these are stored once. After
    a process has run a decoder, its forks must not run one: they would inherit OpenMP's state without its threads.
    """

    device = torch.device("cpu")
    sessions: GraphSessions | None = None
    _turn = Lock()  # with some of Numba's threading layers, only one thread may run parallel loops at a time

    @torch.no_grad()
    def __init__(self, gpt: GPT, precision: str) -> None:
        self.config, self.origin, self.precision = gpt.config, gpt.origin, precision
        self._threads = torch.get_num_threads()
        use_threads(self._threads)
        torch.set_num_threads(self._threads)  # Numba sets PyTorch's number too if both use the same OpenMP
        arrays = dict(pack_model(gpt.config, _Parameters(gpt), precision))
        self._position_table, self._norm = arrays["wpe"], arrays["ln_f"]
        self._blocks = []
        for layer in range(self.config.n_layer):
            name = f"h.{layer}."
            c_attn, attn_proj, c_fc, mlp_proj = (packed_matrix(arrays, name + matrix) for matrix in MATRICES)
            norms = arrays[name + "ln_1"], arrays[name + "ln_2"]
            self._blocks.append(Weights(norms[0], c_attn, attn_proj, norms[1], c_fc, mlp_proj))
        self._token_table = packed_matrix(arrays, "wte")
        self._head = self._token_table if self.config.tied else packed_matrix(arrays, "lm_head")
        self._is_warm = False

    def __call__(self, idx: Tensor) -> Tensor:
        check_shape(idx)
        return self.head(self.hidden(idx, self.new_cache(*idx.shape)))

    def hidden(self, idx: Tensor, sight: KVCache | PackedRow) -> Tensor:
        """As in `Decoder`. Raises IndexError for an unknown token."""
        (B, T), C, config = idx.shape, self.config.n_embd, self.config
        ids = idx.numpy().ravel()
        if ids.min() < 0 or ids.max() >= config.vocab_size:
            raise IndexError(f"tokens go from 0 to {config.vocab_size - 1}")
        if not self._is_warm:
            self.warm_up()
        positions = sight.positions(idx, config.block_size).expand(B, T).numpy().ravel()
        with self._turn:
            use_threads(self._threads)  # it holds for the calling thread only
            buffers = make_buffers(len(ids), C)
            tokens = look_up(self._token_table, ids)[:, :C]
            buffers.x[: len(ids), :C] = tokens + self._position_table[positions]
            pieces, memory = sight.pieces(T), sight.memory(config, key_size(config.head_size))
            for weights, (keys, values) in zip(self._blocks, memory, strict=True):
                block(buffers, pieces, keys, values, weights, config.layer_norm_epsilon, T)
            layer_norm(buffers.x, self._norm, config.layer_norm_epsilon, buffers.normed)
        return torch.from_numpy(buffers.normed[: len(ids), :C]).reshape(B, T, C)

    def head(self, hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1]).numpy()
        with self._turn:
            use_threads(self._threads)
            logits = torch.from_numpy(multiply(self._head, rows, hidden.shape[-2]))
        return logits[: len(rows), : self.config.vocab_size].view(*hidden.shape[:-1], self.config.vocab_size)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        return KVCache(self.config, rows, capacity, key_size=key_size(self.config.head_size))

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
            self(torch.zeros(1, 1, dtype=torch.long))
            first = self._blocks[0].attn_c_attn
            multiply(first, np.zeros((MANY_ROWS, self.config.n_embd), np.float32), MANY_ROWS)  # as for a long prompt


class _Parameters:
    """The parameters of a GPT as arrays. Implements `weight_packing.Source`."""

    def __init__(self, gpt: GPT) -> None:
        self._gpt = gpt

    def __getitem__(self, name: str) -> Any:
        return self._gpt.get_parameter(name).detach().numpy()

    def release(self, name: str) -> None:
        self._gpt.get_parameter(name).data = torch.empty(0)
