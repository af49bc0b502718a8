"""How many programs, warps and splits each kernel of a decode step gets, and when a kernel lets the next one start."""

import torch
import triton

PROCESSORS = 132
"""Streaming multiprocessors of an H100 or H200, for which the shapes are chosen."""
MOST_SPLITS = 8
"""The largest number of parts that the sums of a product are split into."""
WIDE = 1280
"""From this n_embd on, an early start of 2 decodes one row faster than 1. On an H200: 1.46 ms instead of 1.56 at a
width of 1,600, but 226 microseconds instead of 197 at 768, and 451 instead of 330 for 16 rows."""


def matvec_shape(N: int, K: int) -> tuple[int, int]:
    """For `matvec_kernel` on an (N, K) matrix: BLOCK_N, warps.

    A thread holds about 64 weights, so that each multiprocessor loads 32 KB or more at a time. There are at least as
    many programs as multiprocessors, where N allows it.
    """
    padded = triton.next_power_of_2(K)
    warps = 8 if padded >= 2048 and K < 2048 else 4
    rows = max(1, 64 * 32 * warps // padded)
    while rows > 1 and N / rows < PROCESSORS:
        rows //= 2
    return rows, warps


def matmul_shape(N: int, K: int, block_b: int, may_split: bool) -> tuple[int, int, int, int, int]:
    """For `matmul_kernel` on an (N, K) matrix and blocks of `block_b` rows: BLOCK_N, BLOCK_K, splits, warps, stages."""
    block_n = 64 if N > 2**14 else 32 if N >= 32 * PROCESSORS or block_b >= 32 else 16
    block_k = 128 if block_b <= 32 else 64
    programs = -(-N // block_n)
    splits = max(1, min(MOST_SPLITS, -(-PROCESSORS // programs), -(-K // (2 * block_k)))) if may_split else 1
    return block_n, block_k, splits, 4, 4


def attention_splits(rows: int, heads: int) -> int:
    """How many programs share the tokens of a head: 1 if there are enough heads to occupy the GPU."""
    return 4 if rows * heads <= PROCESSORS // 2 else 2 if rows * heads < PROCESSORS else 1


def early_start(device: torch.device, rows: int, width: int) -> int:
    """When a kernel lets the next one start: the constant PDL that `triton_overlap` describes."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        return 0
    return 2 if rows == 1 and width >= WIDE else 1
