"""Weights packed for inference: the matrices of a GPT in fewer bits, laid out as a processor reads them fastest.

Decoding a token multiplies one row of activations by every matrix, and lasts as long as it takes to read them all.
These are layers for a CPU; activations stay in fp32, whatever the weights are held in. They have no gradients.
Each tells as `nbytes` how many bytes a product reads of it.
"""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2cli.model.device import computes_bf16
from gpt2cli.model.gpt import GPT, Block
from gpt2cli.model.huge_pages import use_huge_pages
from gpt2cli.model.quantization import dequantize_groups, quantize_groups, quantize_rows

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = (*DTYPES, "int8", "int4")
"""What weights can be held in."""
FEW_ROWS = 8
"""Up to so many rows of activations, SplitLinear's own product is faster than F.linear."""
GELU_MINIMUM = -0.17
"""What GELU never falls below: -0.17 at -0.75."""


def prepare(model: GPT, device: torch.device, precision: str) -> GPT:
    """The model, which is on the CPU in fp32, on `device` and in `precision`, one of PRECISIONS or auto, ready to run.

    Where there are no packed kernels, weights get the values that they have in `precision`, and are computed with in
    the nearest type that PyTorch has.
    """
    if precision == "auto":
        precision = pick_precision(model, device)
    if device.type == "cpu" and has_packed_kernels():
        pack(model, precision)
    else:
        if precision in ("int8", "int4"):
            for block in model.h:
                for parameter in block.parameters():
                    if parameter.dim() == 2:
                        parameter.data = round_weights(parameter, precision)
        nearest = "bf16" if device.type == "cuda" and computes_bf16() else "fp32"
        model.to(device, DTYPES.get(precision, DTYPES[nearest]))
    model.precision = precision
    return model.eval()


def pick_precision(model: GPT, device: torch.device) -> str:
    """The fastest precision that changes nothing a person could notice.

    8 bits if that is how the model is stored. Otherwise 16: bf16 on a CUDA device that computes in it, fp16 on a CPU
    with packed kernels, where perplexity differs by less than 0.01%. Else fp32.
    """
    if device.type == "cpu" and has_packed_kernels():
        return "int8" if model.precision.startswith("int") else "fp16"
    return "bf16" if device.type == "cuda" and computes_bf16() else "fp32"


def has_packed_kernels() -> bool:
    """Whether this PyTorch has fbgemm, which multiplies fp32 activations by weights in 16 or 8 bits."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@torch.no_grad()
def pack(model: GPT, precision: str) -> None:
    """Hold the matrices of a model on the CPU in `precision`, fp32, bf16, fp16, int8 or int4, in place.

    The embedding and a head that is tied to it are one memory in fp32; in fewer bits a second copy serves to look
    tokens up, since fbgemm's layout does not tell where a row is. Both are held in 8 bits where the rest is in 4.
    """
    blocks = cast("Iterable[Block]", model.h)
    for part in (model.wpe, model.ln_f, *(norm for block in blocks for norm in (block.ln_1, block.ln_2))):
        for parameter in part.parameters():
            parameter.data = parameter.float().clone()  # memory of its own: the file that it is mapped from can go
    around = "int8" if precision == "int4" else precision
    table = model.wte.weight
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():
        # PyTorch means to move its 8-bit types to another package, one day
        warnings.simplefilter("ignore", UserWarning)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # fbgemm lays out a matrix in one thread
            head = pool.submit(_pack_matrix, table if model.lm_head is None else model.lm_head.weight, None, around)
            packed_blocks = [pool.submit(_pack_block, block, precision, around) for block in blocks]
        for done in packed_blocks:
            done.result()  # raises what went wrong in there
        packed_head = head.result()
    if isinstance(packed_head, SplitLinear) and model.lm_head is None:
        table = packed_head.weight[: len(table)]
    model.wte, model.lm_head = _pack_table(table, around), packed_head  # type: ignore[assignment]
    Thread(target=use_huge_pages, daemon=True).start()  # half a second that need not be waited for


@torch.no_grad()  # which is each thread's own
def _pack_block(block: Block, precision: str, around: str) -> None:
    for half, name in ((block.attn, "c_attn"), (block.attn, "c_proj"), (block.mlp, "c_fc"), (block.mlp, "c_proj")):
        layer = getattr(half, name)
        weight = round_weights(layer.weight, precision) if precision == "int4" else layer.weight
        bias = layer.bias.float().clone()
        setattr(half, name, _pack_matrix(weight, bias, around, after_gelu=layer is block.mlp.c_proj))


def round_weights(weight: Tensor, precision: str) -> Tensor:
    """A matrix of a block in fp32, with the values that it has when it is held in `precision`."""
    if precision == "int4":
        return dequantize_groups(*quantize_groups(weight.float()))
    if precision == "int8":
        numbers, scale = quantize_rows(weight.float())
        return numbers * scale[:, None]
    return weight.to(DTYPES[precision]).float()


@torch.no_grad()
def _pack_matrix(weight: Tensor, bias: Tensor | None, precision: str, after_gelu: bool = False) -> nn.Module:
    if precision == "fp32":
        return SplitLinear(weight.float(), bias)
    if precision == "int8":
        return Int8Linear(weight.float(), bias, after_gelu)
    # fbgemm rounds to fp16 itself, of which bf16's values are a part, but for those below 6e-5
    return HalfLinear(weight.float() if precision == "fp16" else round_weights(weight, precision), bias)


def _pack_table(table: Tensor, precision: str) -> nn.Module:
    if precision == "int8":
        return Int8Embedding(table.float())
    if precision == "bf16":
        table = table.bfloat16()  # of whose values most are fp16's too
    held = table if precision == "fp32" else table.half()
    return nn.Embedding.from_pretrained(held)  # type: ignore[no-untyped-call, no-any-return]


def _nbytes(bias: Tensor | None) -> int:
    return 0 if bias is None else bias.nbytes


class SplitLinear(nn.Module):
    """A matrix in fp32. Few rows are multiplied by a part of it in each thread, which so reads on and on in memory.

    PyTorch gives a single product with few rows to one BLAS call, which reaches half of the memory's speed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out = len(weight)
        parts = torch.get_num_threads()
        self.weight = F.pad(weight, (0, 0, 0, -self.out % parts)).clone(memory_format=torch.contiguous_format)
        self.bias = bias
        self._parts = self.weight.view(parts, -1, self.weight.shape[1])
        self.nbytes = self.weight.nbytes + _nbytes(bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > FEW_ROWS:
            return F.linear(x, self.weight[: self.out], self.bias)
        parts = torch.bmm(self._parts, rows.t().expand(len(self._parts), -1, -1))  # (parts, out / parts, rows)
        y = parts.view(-1, len(rows)).t()[:, : self.out].view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class HalfLinear(nn.Module):
    """A matrix in 16 bits, multiplied by fp32 activations, with the sum in fp32 too."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
        self.nbytes = 2 * weight.numel() + _nbytes(bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.quantized.linear_dynamic_fp16.default(x, self._packed)
        return y


class Int8Linear(nn.Module):
    """A matrix in 8 bits with a scale a row of it; activations are rounded to 8 bits too, with a scale a row of them.

    Each row of activations has a scale of its own, so that what is computed beside it changes nothing. Without VNNI
    instructions, sums of two products are held in 16 bits, for which activations have 7.
    "LLM.int8()", Dettmers et al. 2022, section 2.1, less what they do about outliers.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, after_gelu: bool) -> None:
        super().__init__()
        numbers, scale = quantize_rows(weight)
        quantized = torch._make_per_channel_quantized_tensor(
            numbers, scale.double(), torch.zeros(len(scale), dtype=torch.long), 0
        )
        self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        self.bias = bias
        self.nbytes = numbers.nbytes + scale.nbytes + _nbytes(bias)
        levels = 255 if getattr(torch.cpu, "_is_vnni_supported", bool)() else 127
        self._zero = levels // 8 if after_gelu else levels // 2 + 1  # what is never far below 0 needs few levels there
        self._step = 1 / (levels - self._zero)
        self._least = -GELU_MINIMUM / (self._zero * self._step) if after_gelu else 0.0

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(dim=-1, keepdim=True)
        if self._least:
            scale = scale.clamp_(min=self._least)
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default(
            x / scale, self._step, self._zero, self._packed
        )
        return y.mul_(scale) if self.bias is None else torch.addcmul(self.bias, y, scale)


class Int8Embedding(nn.Module):
    """A table in 8 bits with a scale a row."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.numbers, scale = quantize_rows(table)
        self.scale = scale[:, None]

    def forward(self, idx: Tensor) -> Tensor:
        return F.embedding(idx, self.numbers) * F.embedding(idx, self.scale)
