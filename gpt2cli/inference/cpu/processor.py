"""What this processor can do, as far as the compiled loops depend on it. Imports neither Numba nor torch."""

import os
from collections.abc import Set

from llvmlite.binding import get_host_cpu_features

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
_VNNI = frozenset({"avx512vnni"})


def lanes(features: Set[str]) -> int:
    """Numbers in a vector of fp32 on a processor with these features, under LLVM's names: 16 with AVX-512, else 8."""
    return 16 if features >= _AVX512 else 8


def has_vnni(features: Set[str]) -> bool:
    """Whether one instruction multiplies 32 pairs of int16 and adds the products to sums (x86: vpdpwssd)."""
    return features >= _AVX512 | _VNNI


def _features() -> Set[str]:
    """The features that Numba compiles for: those of this processor, or of NUMBA_CPU_NAME and NUMBA_CPU_FEATURES."""
    named = "" if os.environ.get("NUMBA_CPU_NAME", "").lower() == "generic" else None
    listed = os.environ.get("NUMBA_CPU_FEATURES", named)
    if listed is None:
        listed = get_host_cpu_features().flatten()
    return {feature[1:] for feature in listed.split(",") if feature.startswith("+")}


FEATURES = _features()
LANES = lanes(FEATURES)
"""Numbers in a vector of fp32."""
HAS_VNNI = has_vnni(FEATURES)
