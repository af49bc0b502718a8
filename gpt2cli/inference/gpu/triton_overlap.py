"""How the kernels of a decode step overlap, so that the GPU's memory stays busy from one to the next.

A decode step of one row reads every weight once and computes little, so memory bandwidth limits its speed. A small
model's layer takes a few microseconds, no longer than the start and end of a kernel take. Two techniques keep the
memory busy in between:

1. Programmatic dependent launch (Hopper and later): a kernel starts while the previous one still computes, and loads
   its weights, which do not depend on the previous one. The constant PDL says when a kernel lets the next one start:
   0 when it ends, 1 when the previous kernel has ended, 2 when it starts.
2. A kernel that reads few bytes fetches the next kernel's weights into the L2 cache (`prefetch`).

Even so, a launch that does nothing takes 0.8 microseconds of a captured step on an H200, and 1.1 without an early
start (`tests/benchmarks/decode_kernels.py --floor`). If a step of one row did nothing but its launches and, after them,
read the weights, the 124M model, with 63 launches, would reach 0.56 of the memory's bandwidth, and the 1.5B model, with
243, 0.81.

One rule makes an early start correct. Every program of every kernel calls `wait_for_previous`, which returns when all
previous kernels have ended. Before this call, a kernel reads only weights and results of earlier steps, and writes
nothing. The first kernel of a step does not start early, so earlier steps have ended by then.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

CACHE_LINE = tl.constexpr(128)
"""Bytes of a line of the L2 cache."""


@triton.jit
def let_next_start(PDL: tl.constexpr):
    """Call this first in a kernel."""
    if PDL == 2:
        gdc_launch_dependents()


@triton.jit
def wait_for_previous(PDL: tl.constexpr):
    """Call this before a kernel reads results of this step, or writes."""
    if PDL:
        gdc_wait()
    if PDL == 1:
        gdc_launch_dependents()


@triton.jit
def prefetch(w, BYTES: tl.constexpr, program, PROGRAMS: tl.constexpr):
    """Fetch this program's share of a matrix w of BYTES into the L2 cache. PROGRAMS programs share the work."""
    lines: tl.constexpr = (BYTES + CACHE_LINE - 1) // CACHE_LINE
    share: tl.constexpr = (lines + PROGRAMS - 1) // PROGRAMS
    line = program * share + tl.arange(0, triton.next_power_of_2(share))
    line = tl.minimum(line, tl.minimum((program + 1) * share, lines) - 1)
    prefetch_lines(w + line * (CACHE_LINE // (w.dtype.element_ty.primitive_bitwidth // 8)))


@triton.jit
def prefetch_lines(pointers):
    """Fetch the cache lines that contain these addresses."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )
