"""What comes before, between and after the products."""

import math
from typing import Any

import numpy as np

from gpt2cli.inference.cpu.compiling import compiled, inlined
from gpt2cli.inference.cpu.dot_kernels import OUTS, power_of_two

STORE, GELU, ADD = 0, 1, 2
"""What a product does with its results: see `products.product`."""
LEAST = np.float32(1e-30)
"""What is smaller counts as zero where numbers are divided by it."""


@compiled
def normalise(x: Any, ln: Any, epsilon: float, out: Any) -> None:
    """Layer normalisation of each row ("Layer Normalization", Ba et al. 2016)."""
    C = ln.shape[1]
    for r in range(x.shape[0]):
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


@compiled
def softmax(x: Any, n: int) -> None:
    """From scores to shares, of the first n."""
    largest, total = x[0], np.float32(0)
    for i in range(n):
        largest = max(largest, x[i])
    for i in range(n):
        x[i] = exp(x[i] - largest)
    for i in range(n):
        total += x[i]
    for i in range(n):
        x[i] /= total


@inlined
def exp(x: Any) -> Any:
    """e to the x, to a unit or two in the last place: unlike the C library's, this one is computed eight at a time.

    2^n e^f with a whole n and -0.35 <= f <= 0.35, and e^f by its Taylor series.
    """
    x = (
        np.float32(-87) if x < np.float32(-87) else np.float32(88) if x > np.float32(88) else x
    )  # and not a number stays
    n = np.rint(x * np.float32(1 / math.log(2)))
    f = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)  # ln 2 in two parts, the first one exact
    series = np.float32(1 / 5040)
    for k in (720, 120, 24, 6, 2, 1, 1):
        series = series * f + np.float32(1 / k)
    return series * power_of_two(np.int32(n))


@compiled
def round_rows(x: Any, largest: int, rows: Any, steps: Any) -> None:
    """Each row of x (n, width), fp32, in whole numbers up to `largest`, into `rows` (n, width), int16.

    What one of them is worth goes into `steps` (n,), fp32; it is not finite where a number of the row is not. Rows of
    nothing but numbers too small to be divided by become zeros.
    """
    bits = x.view(np.int32)
    for r in range(x.shape[0]):
        extreme = np.int32(0)  # without their sign, numbers are in the order of their bits, what is not finite last
        for c in range(x.shape[1]):
            extreme = max(extreme, bits[r, c] & np.int32(0x7FFFFFFF))
        steps.view(np.int32)[r] = extreme
        inverse = np.float32(0) if steps[r] < LEAST else np.float32(largest) / steps[r]
        steps[r] /= np.float32(largest)
        for c in range(x.shape[1]):
            rows[r, c] = np.int16(np.int32(np.rint(x[r, c] * inverse)))


@inlined
def finish(sums: Any, n: int, scale: Any, bias: Any, y: Any, r: int, first: int, then: int) -> None:
    """Take sums (n, OUTS) times `scale` plus `bias` to y, rows from r on and outputs from `first` on.

    `sums` are not the same afterwards.
    """
    factors, offsets = scale[first : first + OUTS], bias[first : first + OUTS]
    for t in range(n):
        out = y[r + t, first : first + OUTS]
        for i in range(OUTS):
            sums[t, i] = sums[t, i] * factors[i] + offsets[i]
        if then == ADD:
            for i in range(OUTS):
                out[i] += sums[t, i]
        elif then == GELU:
            for i in range(OUTS):
                out[i] = gelu(sums[t, i])
        else:
            for i in range(OUTS):
                out[i] = sums[t, i]
