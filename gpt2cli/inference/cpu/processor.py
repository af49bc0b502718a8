"""What this processor can do, as far as the compiled loops depend on it."""

import os
from collections.abc import Set

from llvmlite.binding import get_default_triple, get_host_cpu_features, get_host_cpu_name

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})


def lanes(features: Set[str]) -> int:
    """Numbers in a vector of fp32 on a processor with these features, under LLVM's names: 16 with AVX-512, else 8."""
    return 16 if features >= _AVX512 else 8


FEATURES = frozenset(
    feature[1:]
    for feature in os.environ.get("GPT2CLI_CPU_FEATURES", get_host_cpu_features().flatten()).split(",")
    if feature.startswith("+")
)
"""What this processor has, under LLVM's names. GPT2CLI_CPU_FEATURES can name less, such as +avx2,+fma,+f16c."""
NAME = "generic" if os.environ.keys() & {"GPT2CLI_CPU_FEATURES", "GPT2CLI_CPU_TRIPLE"} else get_host_cpu_name()
TRIPLE = os.environ.get("GPT2CLI_CPU_TRIPLE", get_default_triple())
"""The kind of processor and of operating system. GPT2CLI_CPU_TRIPLE can name another one, to compile for it."""
LANES = lanes(FEATURES)
"""Numbers in a vector of fp32."""
