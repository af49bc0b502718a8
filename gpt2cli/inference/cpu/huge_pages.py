"""Memory for weights in large pages. With pages of 4 KB, a processor spends a fifth of its time on addresses.

Measured on decoding: pages of 4 KB take 12% to 23% more time of the processor.
"""

import math
import mmap
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

PAGE = 2 * 2**20
"""Bytes of a large page."""
RESERVATION = 2**25
"""Bytes that are reserved at a time; more for a larger array. Pages take memory only once they are written to."""
ALIGNMENT = 64
"""An array begins at a multiple of this: a line of the processor's cache."""
LARGE_PART = 0.8
"""The part of a mapped file that must be in large pages. The first and the last page of a file are small."""
_POPULATE = 22  # MADV_POPULATE_READ of linux/mman.h, which Python does not name


class Arena:
    """Memory for arrays, on Linux in pages of 2 MB if the kernel grants them.

    It contains no other data of the process. It is freed with the last of its arrays.
    """

    def __init__(self) -> None:
        self._free: NDArray[np.uint8] = np.empty(0, np.uint8)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A new array of zeros, which begins at a multiple of ALIGNMENT. Raises MemoryError."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size == 0:
            return np.zeros(shape, dtype)
        if size > len(self._free):
            self._free = _reserve(size)
        taken, self._free = self._free[:size], self._free[-(-size // ALIGNMENT) * ALIGNMENT :]
        return taken.view(dtype).reshape(shape)


def mapped(file: BinaryIO) -> NDArray[np.uint8] | None:
    """The bytes of a file, mapped read-only. None if a processor reads them more slowly than the arrays of an Arena.

    That is so on Linux if the system has the file in small pages: the kernel is older than 6.16 (ext4), or the file
    was written in small parts. Elsewhere, an Arena has small pages too. Raises OSError and ValueError.
    """
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    memory = np.frombuffer(mapping, np.uint8)
    if sys.platform != "linux":
        return memory
    with suppress(OSError, AttributeError):  # a kernel or a Python without large pages, or a disk with an error
        mapping.madvise(mmap.MADV_HUGEPAGE)  # if the file has to be read, then into large pages
        mapping.madvise(_POPULATE)
    return memory if _bytes_in_large_pages(memory.ctypes.data) >= LARGE_PART * len(memory) else None


def _bytes_in_large_pages(address: int) -> int:
    """How much of the mapping of a file that begins at an address is in large pages. 0 if Linux does not tell."""
    with suppress(OSError, ValueError):
        _, _, after = Path("/proc/self/smaps").read_text(errors="replace").partition(f"\n{address:08x}-")
        return int(after.partition("FilePmdMapped:")[2].split(maxsplit=1)[0]) * 1024
    return 0


def _reserve(size: int) -> NDArray[np.uint8]:
    """Reserve at least `size` bytes of zeros, from the beginning of a large page on. Raises MemoryError."""
    length = -(-max(size, RESERVATION) // PAGE) * PAGE
    if sys.platform != "linux":
        memory = np.zeros(size + ALIGNMENT, np.uint8)
        return memory[-memory.ctypes.data % ALIGNMENT :][:size]
    try:  # one large page more, because the mapping may begin at any small page
        mapping = mmap.mmap(-1, length + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise MemoryError(f"no memory for {length:,} bytes of weights") from None
    with suppress(OSError, AttributeError):  # a kernel or a Python without large pages
        mapping.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(mapping, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory[start : start + length]
