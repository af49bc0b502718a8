"""One decode step on a GPU as a sequence of Triton kernels: B rows, one new token each, and the choice of the next.

One row takes five kernels a layer: attention, and four products of a matrix and a vector, each with its norm, bias or
GELU. More rows take seven or eight kernels: tensor cores multiply the matrices, and each norm is a separate kernel. A
product may be split among programs; the next norm adds its parts.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
import triton
from torch import Tensor, nn

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.inference.gpu import triton_kernels as kernels
from gpt2cli.inference.gpu import triton_sampling as choice
from gpt2cli.model.gpt import GPT

if TYPE_CHECKING:
    from gpt2cli.inference.gpu.cuda_graphs import State

EARLY_START: int | None = None
"""When a kernel lets the next one start: 0 when it ends, 1 when the kernel before it has ended, 2 when it starts.
None: `early_start` decides. Benchmarks set the others."""
WIDE = 1280
"""From this n_embd on, an early start of 2 decodes one row faster than 1. On an H200: 1.46 ms instead of 1.56 at a
width of 1,600, but 227 microseconds instead of 201 at 768."""
MOST_CANDIDATES = 64
"""The largest top-k that the kernels can draw from."""
PROCESSORS = 132
"""Streaming multiprocessors of an H100 or H200, for which the shapes of programs are chosen."""

LINEAR: dict[tuple[int, int], tuple[int, int]] = {}
"""Measured choices for `linear_blocks`: (N, K) to (BLOCK_N, warps)."""
MATMUL: dict[tuple[int, int, int], tuple[int, int, int, int, int]] = {}
"""Measured choices for `matmul_blocks`: (N, K, BLOCK_B) to (BLOCK_N, BLOCK_K, splits, warps, stages)."""


def linear_blocks(N: int, K: int) -> tuple[int, int]:
    """How many rows of an (N, K) matrix a program of `linear_kernel` takes, and its warps.

    A thread holds about 64 weights, so that each multiprocessor loads 32 KB or more at a time. There are at least as
    many programs as multiprocessors, where N allows it.
    """
    if (N, K) in LINEAR:
        return LINEAR[N, K]
    padded = triton.next_power_of_2(K)
    warps = 8 if padded >= 2048 and K < 2048 else 4
    rows = max(1, 64 * 32 * warps // padded)
    while rows > 1 and N / rows < PROCESSORS:
        rows //= 2
    return rows, warps


def matmul_blocks(N: int, K: int, rows: int, splits: bool) -> tuple[int, int, int, int, int]:
    """For `matmul_kernel` on an (N, K) matrix and blocks of `rows`: BLOCK_N, BLOCK_K, splits, warps, stages."""
    if (N, K, rows) in MATMUL:
        return MATMUL[N, K, rows]
    block_n = 64 if N > 2**14 else 32 if N >= 32 * PROCESSORS or rows >= 32 else 16
    block_k = 128 if rows <= 32 else 64
    programs = -(-N // block_n)
    count = max(1, min(8, -(-PROCESSORS // programs), -(-K // (2 * block_k)))) if splits else 1
    return block_n, block_k, count, 4, 4


def attention_splits(rows: int, heads: int) -> int:
    """How many programs share the tokens of a head: 1 if there are enough heads to occupy the GPU."""
    return 4 if rows * heads <= PROCESSORS // 2 else 2 if rows * heads < PROCESSORS else 1


def early_start(device: torch.device, rows: int, width: int) -> int:
    """When a kernel lets the next one start (programmatic dependent launch): see EARLY_START."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return 0
    if EARLY_START is not None:
        return EARLY_START
    return 2 if rows == 1 and width >= WIDE else 1


class FusedStep:
    """Call it to decode one token a row: from `state`'s tokens, lengths and cache to its logits or next tokens.

    With `sampling`, the tokens are chosen, noted and made the next input. Without, there are logits (B, V) alone.
    """

    def __init__(self, model: GPT, state: "State", sampling: SamplingConfig | None) -> None:
        config, self.model, self.state = model.config, model, state
        self.rows, self.vocabulary = state.logits.shape
        self.device, dtype = state.logits.device, model.wte.weight.dtype
        C, B = config.n_embd, self.rows
        self.early = early_start(self.device, B, C)
        self.block_b = min(64, max(16, triton.next_power_of_2(B)))
        self.splits = attention_splits(B, config.n_head)
        self.greedy = sampling is not None and sampling.temperature == 0
        self.sampling = sampling
        self.x = self._buffer(B, C)
        self.normed = self._buffer(B, C, dtype=dtype)
        self.qkv = self._buffer(B, 3 * C)
        self.parts = self._buffer(self.splits, B, C, dtype=torch.float32 if self.splits > 1 else dtype)
        self.lse = self._buffer(self.splits, B, config.n_head)
        self.mixed = self._buffer(B, C, dtype=dtype) if self.splits > 1 else self.parts
        self.inner = self._buffer(B, 4 * C, dtype=dtype)
        self.products = self._buffer(8, B, C)
        self.pending: tuple[int, Tensor] | None = None  # parts of a product, and its bias, not yet added to x
        programs = -(-self.vocabulary // self._head_block())
        self.best = self._buffer(B, programs)
        self.ids = self._buffer(B, programs, dtype=torch.int32)
        if sampling is not None and not self.greedy:
            top_p = sampling.top_p if sampling.top_p < 1 else 2.0  # rounding must not cut the last tokens off
            settings = [sampling.temperature, top_p, sampling.min_p]
            self.settings = torch.tensor(settings, dtype=torch.float64).to(self.device)
            self.top = triton.next_power_of_2(min(sampling.top_k, self.vocabulary - 1) + 1)  # with room for ties
            self.keys = self._buffer(B, -(-self.vocabulary // 1024) * self.top, dtype=torch.int64)

    def __call__(self) -> None:
        model, C = self.model, self.model.config.n_embd
        self._launch(
            kernels.embed_kernel,
            (self.rows,),
            self.state.tokens,
            self.state.lengths,
            model.wte.weight,
            model.wpe.weight,
            self.x,
            C=C,
            BLOCK_C=triton.next_power_of_2(C),
            launch_pdl=False,  # what comes before it may be anything
        )
        self.pending = None
        for layer, block in enumerate(model.h):
            if self.rows == 1:
                self._layer_of_one(layer, block)
            else:
                self._layer(layer, block)
        head = model.wte.weight if model.lm_head is None else model.lm_head.weight
        if self.rows == 1:
            self._linear(self.x, head, None, self.state.logits, norm=model.ln_f, best=self.greedy)
        else:
            self._norm(model.ln_f, head)
            self._matmul(self.normed, head, None, self.state.logits, best=self.greedy)
        if self.sampling is not None:
            self._choose(self.sampling)

    def _layer_of_one(self, layer: int, block: Any) -> None:
        attn, mlp = block.attn, block.mlp
        self._linear(self.x, attn.c_attn.weight, attn.c_attn.bias, self.qkv, norm=block.ln_1)
        self._attend(layer, attn.c_proj.weight)
        self._linear(self.parts, attn.c_proj.weight, attn.c_proj.bias, self.x, splits=self.splits, add=True)
        self._linear(self.x, mlp.c_fc.weight, mlp.c_fc.bias, self.inner, norm=block.ln_2, gelu=True)
        self._linear(self.inner, mlp.c_proj.weight, mlp.c_proj.bias, self.x, add=True)

    def _layer(self, layer: int, block: Any) -> None:
        attn, mlp = block.attn, block.mlp
        self._norm(block.ln_1, attn.c_attn.weight)
        self._matmul(self.normed, attn.c_attn.weight, attn.c_attn.bias, self.qkv)
        self._attend(layer, attn.c_proj.weight)
        if self.splits > 1:
            self._combine()
        self._matmul_into_x(self.mixed, attn.c_proj)
        self._norm(block.ln_2, mlp.c_fc.weight)
        self._matmul(self.normed, mlp.c_fc.weight, mlp.c_fc.bias, self.inner, gelu=True)
        self._matmul_into_x(self.inner, mlp.c_proj)

    def _linear(
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        out: Tensor,
        norm: nn.LayerNorm | None = None,
        splits: int = 1,
        add: bool = False,
        gelu: bool = False,
        best: bool = False,
    ) -> None:
        N, K = min(w.shape[0], VOCAB_SIZE), w.shape[1]
        rows, warps = linear_blocks(N, K)
        self._launch(
            kernels.linear_kernel,
            (-(-N // rows),),
            x,
            self.lse,
            x if norm is None else norm.weight,
            x if norm is None else norm.bias,
            w,
            x if bias is None else bias,
            out,
            self.best,
            self.ids,
            N,
            K=K,
            D=self.model.config.head_size,
            EPS=self.model.config.layer_norm_epsilon,
            BLOCK_N=rows,
            BLOCK_K=triton.next_power_of_2(K),
            NORM=norm is not None,
            SPLITS=splits,
            BIAS=bias is not None,
            GELU=gelu,
            ADD=add,
            BEST=best,
            num_warps=warps,
        )

    def _matmul(
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        out: Tensor,
        gelu: bool = False,
        best: bool = False,
        splits: bool = False,
    ) -> int:
        """Returns the number of parts that the sums over the inputs are split into."""
        N, K = min(w.shape[0], VOCAB_SIZE), w.shape[1]
        block_n, block_k, count, warps, stages = matmul_blocks(N, K, self.block_b, splits)
        share = -(-K // (block_k * count)) * block_k
        count = -(-K // share)
        self._launch(
            kernels.matmul_kernel,
            (-(-N // block_n), count, -(-self.rows // self.block_b)),
            x,
            w,
            x if bias is None else bias,
            out,
            self.best,
            self.ids,
            self.rows,
            N,
            K=K,
            SHARE=share,
            BLOCK_B=self.block_b,
            BLOCK_N=block_n,
            BLOCK_K=block_k,
            BIAS=bias is not None,
            GELU=gelu,
            BEST=best,
            STAGES=stages,
            num_warps=warps,
        )
        return count

    def _matmul_into_x(self, x: Tensor, layer: nn.Linear) -> None:
        """A product that the next norm adds to the residual stream."""
        self.pending = self._matmul(x, layer.weight, None, self.products, splits=True), layer.bias

    def _norm(self, norm: nn.LayerNorm, ahead: Tensor) -> None:
        splits, bias = self.pending or (0, norm.bias)
        C = self.model.config.n_embd
        self._launch(
            kernels.norm_kernel,
            (self.rows,),
            self.x,
            self.products,
            bias,
            norm.weight,
            norm.bias,
            self.normed,
            ahead,
            self.rows,
            C=C,
            EPS=self.model.config.layer_norm_epsilon,
            BLOCK_C=triton.next_power_of_2(C),
            SPLITS=splits,
            AHEAD=min(ahead.nbytes, 2**23),
            PROGRAMS=self.rows,
        )

    def _attend(self, layer: int, ahead: Tensor) -> None:
        config = self.model.config
        self._launch(
            kernels.attend_kernel,
            (self.rows, config.n_head, self.splits),
            self.qkv,
            self.state.keys[layer],
            self.state.values[layer],
            self.state.lengths,
            self.parts,
            self.lse,
            ahead,
            self.state.keys.shape[3],
            H=config.n_head,
            D=config.head_size,
            SCALE=1 / math.sqrt(config.head_size),
            BLOCK_S=64,
            BLOCK_D=triton.next_power_of_2(config.head_size),
            SPLITS=self.splits,
            AHEAD=ahead.nbytes,
            PROGRAMS=self.rows * config.n_head * self.splits,
        )

    def _combine(self) -> None:
        C, D = self.model.config.n_embd, self.model.config.head_size
        shape = {"C": C, "D": D, "BLOCK_C": triton.next_power_of_2(C), "SPLITS": self.splits}
        self._launch(kernels.combine_kernel, (self.rows,), self.parts, self.lse, self.mixed, self.rows, **shape)

    def _choose(self, sampling: SamplingConfig) -> None:
        state, last = self.state, self.state.keys.shape[3] - 1
        places = (state.tokens, state.lengths, state.slots, state.drawn, state.largest)
        if self.greedy:
            programs = self.best.shape[1]
            block = triton.next_power_of_2(programs)
            self._launch(
                choice.pick_kernel,
                (self.rows,),
                self.best,
                self.ids,
                *places,
                programs,
                last,
                BLOCK=block,
                num_warps=8,
            )
            return
        count = self.keys.shape[1]
        grid = (self.rows, count // self.top)
        self._launch(choice.top_kernel, grid, state.logits, self.keys, self.vocabulary, BLOCK_V=1024, TOP=self.top)
        self._launch(
            choice.sample_kernel,
            (self.rows,),
            self.keys,
            self.settings,
            state.uniform,
            *places,
            count,
            last,
            K=min(sampling.top_k, self.vocabulary),
            BLOCK=triton.next_power_of_2(count),
            TOP=self.top,
            num_warps=8,
        )

    def _head_block(self) -> int:
        """How many tokens of the vocabulary a program of the head compares."""
        K = self.model.config.n_embd
        if self.rows == 1:
            return linear_blocks(self.vocabulary, K)[0]
        return matmul_blocks(self.vocabulary, K, self.block_b, False)[0]

    def _buffer(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def _launch(self, kernel: Any, grid: tuple[int, ...], *args: Any, launch_pdl: bool = True, **options: Any) -> None:
        kernel[grid](*args, PDL=self.early, launch_pdl=launch_pdl and self.early > 0, **options)


def chooses(sampling: SamplingConfig) -> bool:
    """Whether the kernels can choose tokens with these settings."""
    return sampling.temperature == 0 or 0 < sampling.top_k <= MOST_CANDIDATES
