"""One decode step on a GPU as a sequence of Triton kernels: B rows, one new token each, and the choice of the next.

One row takes five kernels a layer: attention, and four products of a matrix and a vector, each fused with its norm,
bias or GELU. More rows take seven or eight kernels a layer: tensor cores multiply the matrices, and each norm is a
separate kernel. The sums of a product may be split among programs; the next norm adds the parts.

Launches name their arguments, grouped by lines as in the kernels: tensors, sizes, options.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
import triton
from torch import Tensor, nn

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.inference.gpu.launch_shapes import MOST_SPLITS, attention_splits, early_start, matmul_shape, matvec_shape
from gpt2cli.inference.gpu.triton_attention import attend_kernel, combine_kernel
from gpt2cli.inference.gpu.triton_matmul import matmul_kernel, matvec_kernel
from gpt2cli.inference.gpu.triton_residual import embed_kernel, norm_kernel
from gpt2cli.inference.gpu.triton_sampling import greedy_kernel, sample_kernel, top_keys_kernel
from gpt2cli.model.gpt import GPT

if TYPE_CHECKING:
    from gpt2cli.inference.gpu.cuda_graphs import State

MOST_CANDIDATES = 64
"""The largest top-k that the kernels can draw from."""
LOGITS_PER_PROGRAM = 1024
"""Logits that a program of `top_keys_kernel` compares."""
MOST_AHEAD = 2**23
"""The largest part of a matrix that a norm fetches into the L2 cache, in bytes."""


class FusedStep:
    """Call it to decode one token a row: from `state`'s tokens, lengths and cache to its logits or next tokens.

    With `sampling`, the kernels choose the tokens, write them to `state.drawn` and make them the next input. Without,
    the step ends with logits (B, V).
    """

    def __init__(self, model: GPT, state: "State", sampling: SamplingConfig | None) -> None:
        config, self.model, self.state, self.sampling = model.config, model, state, sampling
        self.rows, self.vocabulary = state.logits.shape
        self.device, dtype = state.logits.device, model.wte.weight.dtype
        C, B = config.n_embd, self.rows
        self.early = early_start(self.device, B, C)
        self.block_b = min(64, max(16, triton.next_power_of_2(B)))
        self.splits = attention_splits(B, config.n_head)
        self.greedy = sampling is not None and sampling.temperature == 0
        self.x = self._buffer(B, C)
        self.normed = self._buffer(B, C, dtype=dtype)
        self.qkv = self._buffer(B, 3 * C)
        self.parts = self._buffer(self.splits, B, C, dtype=torch.float32 if self.splits > 1 else dtype)
        self.lse = self._buffer(self.splits, B, config.n_head)
        self.mixed = self._buffer(B, C, dtype=dtype) if self.splits > 1 else self.parts
        self.inner = self._buffer(B, 4 * C, dtype=dtype)
        self.products = self._buffer(MOST_SPLITS, B, C)
        self.pending: tuple[int, Tensor] | None = None  # parts of a product, and its bias, not yet added to x
        programs = -(-self.vocabulary // self._head_block())
        self.best = self._buffer(B, programs)
        self.ids = self._buffer(B, programs, dtype=torch.int32)
        if sampling is not None and not self.greedy:
            top_p = sampling.top_p if sampling.top_p < 1 else 2.0  # rounding must not cut the last tokens off
            settings = [sampling.temperature, top_p, sampling.min_p]
            self.settings = torch.tensor(settings, dtype=torch.float64).to(self.device)
            self.top = triton.next_power_of_2(min(sampling.top_k, self.vocabulary - 1) + 1)  # with room for ties
            self.keys = self._buffer(B, -(-self.vocabulary // LOGITS_PER_PROGRAM) * self.top, dtype=torch.int64)

    def __call__(self) -> None:
        model, state = self.model, self.state
        self._launch(
            embed_kernel, (self.rows,), launch_pdl=False,  # no kernel of this step comes before it
            tokens=state.tokens, lengths=state.lengths, wte=model.wte.weight, wpe=model.wpe.weight, x=self.x,
            C=model.config.n_embd,
        )  # fmt: skip
        self.pending = None
        for layer, block in enumerate(model.h):
            if self.rows == 1:
                self._layer_of_one_row(layer, block)
            else:
                self._layer_of_rows(layer, block)
        head = model.wte.weight if model.lm_head is None else model.lm_head.weight
        if self.rows == 1:
            self._matvec(self.x, head, None, state.logits, norm=model.ln_f, best=self.greedy)
        else:
            self._norm(model.ln_f, head)
            self._matmul(self.normed, head, None, state.logits, best=self.greedy)
        if self.sampling is not None:
            self._choose(self.sampling)

    def _layer_of_one_row(self, layer: int, block: Any) -> None:
        attn, mlp = block.attn, block.mlp
        self._matvec(self.x, attn.c_attn.weight, attn.c_attn.bias, self.qkv, norm=block.ln_1)
        self._attend(layer, attn.c_proj.weight)
        self._matvec(self.parts, attn.c_proj.weight, attn.c_proj.bias, self.x, splits=self.splits, add=True)
        self._matvec(self.x, mlp.c_fc.weight, mlp.c_fc.bias, self.inner, norm=block.ln_2, gelu=True)
        self._matvec(self.inner, mlp.c_proj.weight, mlp.c_proj.bias, self.x, add=True)

    def _layer_of_rows(self, layer: int, block: Any) -> None:
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

    def _matvec(
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        out: Tensor,
        norm: nn.LayerNorm | None = None,
        splits: int = 1,
        gelu: bool = False,
        add: bool = False,
        best: bool = False,
    ) -> None:
        config, N, K = self.model.config, min(w.shape[0], VOCAB_SIZE), w.shape[1]
        gain, shift = (None, None) if norm is None else (norm.weight, norm.bias)
        block_n, warps = matvec_shape(N, K)
        top, ids = (self.best, self.ids) if best else (None, None)
        self._launch(
            matvec_kernel, (-(-N // block_n),), num_warps=warps,
            x=x, lse=self.lse, gain=gain, shift=shift, w=w, bias=bias, out=out, best=top, ids=ids,
            N=N, K=K, D=config.head_size, EPS=config.layer_norm_epsilon, BLOCK_N=block_n,
            SPLITS=splits, GELU=gelu, ADD=add,
        )  # fmt: skip

    def _matmul(
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        out: Tensor,
        gelu: bool = False,
        best: bool = False,
        may_split: bool = False,
    ) -> int:
        """Returns the number of parts that the sums over the inputs are split into."""
        N, K = min(w.shape[0], VOCAB_SIZE), w.shape[1]
        block_n, block_k, splits, warps, stages = matmul_shape(N, K, self.block_b, may_split)
        top, ids = (self.best, self.ids) if best else (None, None)
        share = -(-K // (block_k * splits)) * block_k
        splits = -(-K // share)
        self._launch(
            matmul_kernel, (-(-N // block_n), splits, -(-self.rows // self.block_b)), num_warps=warps,
            x=x, w=w, bias=bias, out=out, best=top, ids=ids,
            B=self.rows, N=N, K=K, SHARE=share, BLOCK_B=self.block_b, BLOCK_N=block_n, BLOCK_K=block_k,
            GELU=gelu, STAGES=stages,
        )  # fmt: skip
        return splits

    def _matmul_into_x(self, x: Tensor, layer: nn.Linear) -> None:
        """A product that the next norm adds to the residual stream."""
        self.pending = self._matmul(x, layer.weight, None, self.products, may_split=True), layer.bias

    def _norm(self, norm: nn.LayerNorm, ahead: Tensor) -> None:
        config, (splits, bias) = self.model.config, self.pending or (0, norm.bias)
        self._launch(
            norm_kernel, (self.rows,),
            x=self.x, parts=self.products, bias=bias, gain=norm.weight, shift=norm.bias, out=self.normed, ahead=ahead,
            B=self.rows, C=config.n_embd, EPS=config.layer_norm_epsilon,
            SPLITS=splits, AHEAD=min(ahead.nbytes, MOST_AHEAD), PROGRAMS=self.rows,
        )  # fmt: skip

    def _attend(self, layer: int, ahead: Tensor) -> None:
        config, state, grid = self.model.config, self.state, (self.rows, self.model.config.n_head, self.splits)
        self._launch(
            attend_kernel, grid,
            qkv=self.qkv, keys=state.keys[layer], values=state.values[layer], lengths=state.lengths,
            out=self.parts, lse=self.lse, ahead=ahead,
            CAPACITY=state.keys.shape[3], H=config.n_head, D=config.head_size, SCALE=1 / math.sqrt(config.head_size),
            BLOCK_S=64, SPLITS=self.splits, AHEAD=ahead.nbytes, PROGRAMS=math.prod(grid),
        )  # fmt: skip

    def _combine(self) -> None:
        config = self.model.config
        self._launch(
            combine_kernel, (self.rows,),
            parts=self.parts, lse=self.lse, out=self.mixed,
            B=self.rows, C=config.n_embd, D=config.head_size, SPLITS=self.splits,
        )  # fmt: skip

    def _choose(self, sampling: SamplingConfig) -> None:
        state = self.state
        written: dict[str, Any] = {"tokens": state.tokens, "lengths": state.lengths, "slots": state.slots}
        written |= {"drawn": state.drawn, "largest": state.largest}
        last = state.keys.shape[3] - 1
        if self.greedy:
            self._launch(
                greedy_kernel, (self.rows,), num_warps=8,
                best=self.best, ids=self.ids, **written,
                PROGRAMS=self.best.shape[1], LAST=last, BLOCK=triton.next_power_of_2(self.best.shape[1]),
            )  # fmt: skip
            return
        count = self.keys.shape[1]
        self._launch(
            top_keys_kernel, (self.rows, count // self.top), logits=state.logits, keys=self.keys,
            V=self.vocabulary, BLOCK_V=LOGITS_PER_PROGRAM, TOP=self.top,
        )  # fmt: skip
        self._launch(
            sample_kernel, (self.rows,), num_warps=8,
            keys=self.keys, settings=self.settings, uniform=state.uniform, **written,
            COUNT=count, LAST=last,
            K=min(sampling.top_k, self.vocabulary), BLOCK=triton.next_power_of_2(count), TOP=self.top,
        )  # fmt: skip

    def _head_block(self) -> int:
        """How many tokens of the vocabulary a program of the head compares."""
        K = self.model.config.n_embd
        if self.rows == 1:
            return matvec_shape(self.vocabulary, K)[0]
        return matmul_shape(self.vocabulary, K, self.block_b, False)[0]

    def _buffer(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def _launch(self, kernel: Any, grid: tuple[int, ...], launch_pdl: bool = True, **arguments: Any) -> None:
        kernel[grid](PDL=self.early, launch_pdl=launch_pdl and self.early > 0, **arguments)


def chooses(sampling: SamplingConfig) -> bool:
    """Whether the kernels can choose tokens with these settings."""
    return sampling.temperature == 0 or 0 < sampling.top_k <= MOST_CANDIDATES
