"""Layer norm, GELU, softmax, the rounding of activations, and the last step of a product (its epilogue)."""

import math
from typing import Any

import numpy as np

from gpt2cli.inference.cpu.compiler.functions import emitted, inlined
from gpt2cli.inference.cpu.packed_layout import BLOCK_OUTPUTS

STORE, GELU, ADD = 0, 1, 2
"""Epilogues of a product: write the results, write their GELU, or add the results to the output."""
SMALLEST = np.float32(1e-30)
"""Nothing is divided by a smaller number."""


@inlined
def layer_norm(x: Any, ln: Any, epsilon: float, out: Any, first: int, last: int) -> None:
    """Write the layer norm of each row of x (m, C) to `out` ("Layer Normalization", Ba et al. 2016). `ln` (2, C)."""
    C = ln.shape[1]
    for r in range(first, last):
        mean = np.float32(0)
        for c in range(C):
            mean += x[r, c]
        mean /= np.float32(C)
        variance = np.float32(0)
        for c in range(C):
            variance += (x[r, c] - mean) * (x[r, c] - mean)
        inverse = np.float32(1) / np.sqrt(variance / np.float32(C) + np.float32(epsilon))
        for c in range(C):
            out[r, c] = (x[r, c] - mean) * inverse * ln[0, c] + ln[1, c]


@inlined
def gelu(x: Any) -> Any:
    """GELU in its tanh form (Hendrycks & Gimpel 2016), where 1 + tanh(u) is 2 / (1 + exp(-2 u))."""
    u = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return x / (np.float32(1) + exp(np.float32(-2) * u))


@inlined
def softmax(x: Any, n: int) -> None:
    """Replace the first n scores in x by their softmax."""
    largest, total = x[0], np.float32(0)
    for i in range(n):
        largest = max(largest, x[i])
    for i in range(n):
        x[i] = exp(x[i] - largest)
    for i in range(n):
        total += x[i]
    for i in range(n):
        x[i] /= total


@emitted
def float_of(b: Any, bits: Any) -> Any:
    """The fp32 number with these bits."""
    from llvmlite import ir
    from gpt2cli.inference.cpu.compiler.values import Number
    return Number(np.dtype(np.float32), b.bitcast(bits.llvm, ir.FloatType()))


@inlined
def exp(x: Any) -> Any:
    """e^x, correct to one or two units in the last place. LLVM vectorizes it, unlike the C library's.

    e^x = 2^n e^f with an integer n and |f| <= 0.35. e^f is its Taylor series.
    """
    x = np.float32(-87) if x < np.float32(-87) else np.float32(88) if x > np.float32(88) else x  # NaN stays NaN
    n = np.rint(x * np.float32(1 / math.log(2)))
    # ln 2 in two parts, so that the first product is exact
    f = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    for k in (720, 120, 24, 6, 2, 1, 1):
        series = series * f + np.float32(1 / k)
    return series * float_of(np.int32(n) + 127 << 23)


@inlined
def round_rows(x: Any, largest: int, rows: Any, steps: Any) -> None:
    """Round each row of x (n, width), fp32, to integers up to `largest`: `rows` (n, width), int16.

    `steps` (n,), fp32, receives what one of these integers stands for. It is not finite if a number of the row is not.
    Rows whose numbers are all below SMALLEST become zeros.
    """
    bits = x.view(np.int32)
    for r in range(x.shape[0]):
        extreme = np.int32(0)  # absolute values compare as their bits do; infinity and NaN are the largest
        for c in range(x.shape[1]):
            extreme = max(extreme, bits[r, c] & np.int32(0x7FFFFFFF))
        steps.view(np.int32)[r] = extreme
        inverse = np.float32(0) if steps[r] < SMALLEST else np.float32(largest) / steps[r]
        steps[r] /= np.float32(largest)
        for c in range(x.shape[1]):
            rows[r, c] = np.int16(np.int32(np.rint(x[r, c] * inverse)))


