"""Weights packed for inference: the matrices of a GPT in fewer bits, laid out as a processor reads them fastest.

Decoding a token multiplies one row of activations by every matrix, and lasts as long as it takes to read them all.
This is for a CPU. Activations stay in fp32; where they are multiplied by whole numbers, it is in 12 to 16 bits.
"""

from collections.abc import Callable
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpt2cli.errors import UsageError
from gpt2cli.inference.cpu.huge_pages import Arena
from gpt2cli.inference.cpu.weight_packing import DTYPES, pack_block, pack_matrix, pack_norm, refuse_cut
from gpt2cli.model.device import computes_bf16
from gpt2cli.model.gpt import GPT, KVCache, PackedRow
from gpt2cli.model.quantization import GROUP, dequantize_groups, is_cut, quantize_groups, quantize_rows

PRECISIONS = (*DTYPES, "int8", "int4")
"""What weights can be held in."""


def prepare(model: GPT, device: torch.device, precision: str) -> GPT:
    """The model, which is on the CPU in fp32, on `device` and in `precision`, one of PRECISIONS or auto, ready to run.

    Where there are no kernels, weights get the values that they have in `precision`, and are computed with in the
    nearest type that PyTorch has. Raises CheckpointError for weights that are too large for `precision`.
    """
    if precision == "auto":
        precision = pick_precision(model, device)
    if device.type == "cpu" and has_kernels():
        return CPUDecoder(model, precision)
    if precision in ("int8", "int4"):
        for block in model.h:
            for parameter in block.parameters():
                if parameter.dim() == 2:
                    parameter.data = round_weights(parameter, precision)
    nearest = "bf16" if device.type == "cuda" and computes_bf16() else "fp32"
    if precision == "fp16":
        for parameter in model.parameters():
            refuse_cut(not bool(parameter.half().isfinite().all()), parameter, precision)
    model.to(device, DTYPES.get(precision, DTYPES[nearest]))
    model.precision = precision
    return model.eval()


def pick_precision(model: GPT, device: torch.device) -> str:
    """The fastest precision that changes nothing a person could notice.

    8 bits if that is how the model is stored. Otherwise 16: bf16 on a CUDA device that computes in it, fp16 on a CPU
    with kernels, where perplexity differs by less than 0.01%. Else fp32.
    """
    if device.type == "cpu" and has_kernels():
        return "int8" if model.precision.startswith("int") else "fp16"
    return "bf16" if device.type == "cuda" and computes_bf16() else "fp32"


def has_kernels() -> bool:
    """Whether Numba is there, and a processor that converts 16-bit numbers: a PC's since 2013, or a 64-bit ARM."""
    if find_spec("numba") is None:
        return False
    from llvmlite import binding

    machine = binding.get_default_triple().partition("-")[0]
    return machine in ("aarch64", "arm64") or bool(binding.get_host_cpu_features().get("avx2"))


def round_weights(weight: Tensor, precision: str) -> Tensor:
    """A matrix of a block in fp32, with the values that it has when it is held in `precision`."""
    if precision == "int4" and weight.shape[1] % GROUP == 0:
        numbers, scale = quantize_groups(weight.float())
        refuse_cut(is_cut(scale), weight, precision)
        return dequantize_groups(numbers, scale)
    if precision in ("int8", "int4"):  # rows that are not made of whole groups cannot be held in 4
        numbers, scale = quantize_rows(weight.float())
        return numbers * scale[:, None]
    return weight.to(DTYPES[precision]).float()


class CPUDecoder(GPT):
    """A GPT for inference, in `precision`. Takes the place of `model`, whose weights it lets go.

    An embedding that is the head too is held once, in 8 bits where the rest is in 4. Like all that computes with
    OpenMP, a process that has run it must not be forked to run it in the child.
    """

    _turn = Lock()  # not all of Numba's ways to divide loops among threads bear two callers at a time

    @torch.no_grad()
    def __init__(self, model: GPT, precision: str) -> None:
        from gpt2cli.inference.cpu.attention import key_size  # Numba is imported where it is used: it takes a while
        from gpt2cli.inference.cpu.block import use_threads

        nn.Module.__init__(self)
        self.config, self.precision = model.config, precision
        self.wpe, self.ln_f = model.wpe, model.ln_f
        for parameter in self.parameters():
            parameter.data = parameter.float().clone()  # memory of its own: the file that it is mapped from can go
        self.key_size, self.graphs = key_size(model.config.head_size), None
        self._threads = torch.get_num_threads()
        use_threads(self._threads)
        torch.set_num_threads(self._threads)  # where both use the same OpenMP, Numba has set PyTorch's too
        self._blocks, arena = [], Arena()
        for layer, block in enumerate(model.h):
            self._blocks.append(pack_block(block, precision, arena))  # type: ignore[arg-type]
            model.h[layer] = nn.Identity()  # so that no more than one block is there twice
        around = "int8" if precision == "int4" else precision
        self._table = pack_matrix(model.wte.weight, None, around, arena)
        self._head = self._table
        if model.lm_head is not None:
            self._head = pack_matrix(model.lm_head.weight, None, around, arena)
        self._norm = pack_norm(self.ln_f)
        self._is_warm = False
        self.eval()

    def compiling_note(self) -> str | None:
        """What to tell a person before `warm_up`, if it was never done before on this machine."""
        from gpt2cli.inference.cpu.compiling import is_compiled, store

        if is_compiled(self.precision):
            return None
        if (problem := store().problem) is None:
            return f"compiling for this processor, once for {self.precision}"
        advice = "set NUMBA_CACHE_DIR to a directory of yours to keep the result"
        return f"compiling for this processor, every time ({problem}): {advice}"

    def warm_up(self) -> None:
        """Compile the loops of a step, or read them from the store. Without this call, the first step does it."""
        from gpt2cli.inference.cpu.compiling import compile_lock
        from gpt2cli.inference.cpu.matmul import MANY_ROWS, multiply

        self._is_warm = True  # already here, as the steps below would call this again
        with compile_lock(self.precision):
            self.head(self.hidden(torch.zeros(1, 1, dtype=torch.long)))
            first = self._blocks[0].attn_c_attn
            multiply(first, np.zeros((MANY_ROWS, self.config.n_embd), np.float32), MANY_ROWS)  # for long prompts

    def hidden(
        self,
        idx: Tensor,
        cache: KVCache | None = None,
        packing: PackedRow | None = None,
        wanted: Tensor | None = None,
        lookup: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """As `GPT.hidden`, without gradients, of which `lookup` is a part. Raises IndexError for an unknown token."""
        (B, T), ids, past = idx.shape, idx.numpy().ravel(), [0] * len(idx) if cache is None else cache.lengths
        longest = packing.longest if packing else T + max(past)
        room = self.config.block_size if cache is None else min(self.config.block_size, cache.capacity)
        if longest > room:
            raise UsageError(f"{longest} tokens do not fit into the model's window of {room}")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise IndexError(f"tokens go from 0 to {self.config.vocab_size - 1}")
        if not self._is_warm:
            self.warm_up()
        if packing is None:
            pieces = [(b * T, T, b, past[b], 0, past[b]) for b in range(B)]
            positions = (np.array(past)[:, None] + np.arange(T)).ravel()
        else:
            pieces, positions = _pieces(packing), packing.positions.numpy()
        with self._turn:
            final = self._run(ids, positions, np.array(pieces), cache, T)
        if cache is not None:
            cache.lengths = [length + T for length in past]
        states = torch.from_numpy(final).reshape(B, T, -1)
        return states if wanted is None else states[:, wanted]

    def _run(self, ids: Any, positions: Any, pieces: Any, cache: KVCache | None, T: int) -> Any:
        """The final hidden states (m, C) of tokens `ids` (m,) at `positions` (m,), T in a row of the input."""
        from gpt2cli.inference.cpu.block import block, make_buffers, use_threads
        from gpt2cli.inference.cpu.elementwise import layer_norm
        from gpt2cli.inference.cpu.matmul import look_up

        use_threads(self._threads)  # which counts for the thread that says so
        config, m = self.config, len(ids)
        buffers = make_buffers(m, config.n_embd)
        tokens = look_up(self._table, ids)[:, : config.n_embd]
        buffers.x[:m, : config.n_embd] = tokens + self.wpe.weight.detach().numpy()[positions]
        if cache is None:  # one memory for all blocks
            last = pieces[:, 3] + pieces[:, 1]
            shape = (2, pieces[:, 2].max() + 1, config.n_head, last.max(), self.key_size)
            keys, values = np.zeros(shape, np.float32)
        for layer, weights in enumerate(self._blocks):
            if cache is not None:
                keys, values = cache.k[layer].numpy(), cache.v[layer].numpy()
            block(buffers, pieces, keys, values, weights, config.layer_norm_epsilon, T)
        layer_norm(buffers.x, self._norm, config.layer_norm_epsilon, buffers.normed)
        return buffers.normed[:m, : config.n_embd]

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., T, V) of final hidden states (..., T, C)."""
        from gpt2cli.inference.cpu.block import use_threads
        from gpt2cli.inference.cpu.matmul import multiply

        rows = x.reshape(-1, x.shape[-1]).numpy()
        with self._turn:
            use_threads(self._threads)
            logits = torch.from_numpy(multiply(self._head, rows, x.shape[-2]))
        return logits[: len(rows), : self.config.vocab_size].view(*x.shape[:-1], self.config.vocab_size)

    @property
    def nbytes(self) -> int:
        """The bytes of weights that a token's step reads."""
        matrices = [matrix for block in self._blocks for matrix in block] + [self._norm, self._head]
        parts = (matrix[:-1] if isinstance(matrix, tuple) else [matrix] for matrix in matrices)  # all but its `step`
        return sum(part.nbytes for matrix in parts for part in matrix)


def _pieces(packing: PackedRow) -> list[tuple[int, int, int, int, int, int]]:
    """What `attend` wants to know of several sequences in a row: a token's place in the cache is that in the row."""
    starts = np.cumsum([0, *packing.lengths]).tolist()
    befores = [(0, 0) if i is None else (starts[i], packing.lengths[i]) for i in packing.beginnings]
    return [(a, n, 0, a, *before) for a, n, before in zip(starts, packing.lengths, befores, strict=False)]
