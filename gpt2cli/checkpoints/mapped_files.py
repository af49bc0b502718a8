"""Files that are mapped into memory: they are read from disk when they are used, and changes stay in memory."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file, copy-on-write: arrays in it can be changed, and the file stays as it is."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def array_in(content: mmap.mmap, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A part of a mapped file as an array. It is a copy only if the offset does not suit the type.

    Raises ValueError or TypeError for a shape that no array has, or that goes beyond the end of the file.
    """
    array: Array = np.ndarray(shape, dtype, content, offset)
    return array if array.flags.aligned else array.copy()


def release(array: Array) -> None:
    """Remove the pages of an array from this process's memory, if it is a contiguous part of a mapped file.

    They are read again when they are used. Changes of the array are lost.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(owner, "madvise"):  # Windows has no madvise
        return
    start = array.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
    end = start + array.nbytes
    first = start + -start % mmap.PAGESIZE  # the page before it holds a part of another tensor
    if first < end:
        owner.madvise(mmap.MADV_DONTNEED, first, end - first)
