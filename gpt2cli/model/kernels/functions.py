"""Functions of GPT-2 that are no products."""

import math
from typing import Any

import numpy as np

from gpt2cli.model.kernels.compiling import compiled
from gpt2cli.model.kernels.tiles import power_of_two


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


@compiled
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


@compiled
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
