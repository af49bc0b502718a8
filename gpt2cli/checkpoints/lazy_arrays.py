"""Tensors of a checkpoint whose shapes and types are known, and whose values are read when they are used."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpt2cli.checkpoints.mapped_files import Array


@dataclass(frozen=True)
class LazyArray:
    """A tensor of a checkpoint.

    compute  returns the values, with this shape and type; None in a model of which only the shape is wanted
    sources  the arrays that it is computed from, which may be parts of a mapped file
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compute: Callable[[], Array] | None
    sources: tuple[Array, ...] = ()

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def transposed(self) -> "LazyArray":
        """The transposed matrix. Its values are a view."""
        return derived(np.transpose, self.shape[::-1], self.dtype, self)

    def read(self) -> Array:
        """The values. If they are computed, they are computed at each call, and not kept."""
        if self.compute is None:
            raise ValueError("only the shape of this tensor was read")
        return self.compute()

    def without_values(self) -> "LazyArray":
        """The same shape and type."""
        return replace(self, compute=None, sources=())


def lazy(array: Array) -> LazyArray:
    """An array that is there already, such as a part of a mapped file."""
    return LazyArray(array.shape, array.dtype, lambda: array, (array,))


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> LazyArray:
    """An array of zeros."""
    return LazyArray(shape, dtype, lambda: np.zeros(shape, dtype))


def joined(parts: list[LazyArray]) -> LazyArray:
    """Arrays of one shape, one after the other. Those of different types become fp32."""
    first = parts[0]
    if len(parts) == 1:
        return first
    dtype = first.dtype if all(part.dtype == first.dtype for part in parts) else np.dtype(np.float32)
    shape = (len(parts) * first.shape[0], *first.shape[1:])
    return derived(
        lambda *arrays: np.concatenate([array.astype(dtype, copy=False) for array in arrays]), shape, dtype, *parts
    )


def derived(
    function: Callable[..., Array], shape: tuple[int, ...], dtype: np.dtype[Any], *parts: LazyArray
) -> LazyArray:
    """The result of a function of other tensors, which has this shape and type."""
    sources = tuple(source for part in parts for source in part.sources)
    if any(part.compute is None for part in parts):
        return LazyArray(shape, dtype, None)
    return LazyArray(shape, dtype, lambda: function(*(part.read() for part in parts)), sources)


def same(a: LazyArray, b: LazyArray | None) -> bool:
    """Whether two tensors have the same shape and values. Tensors without values are taken to be the same."""
    if b is None or a.shape != b.shape:
        return False
    if a.compute is None or b.compute is None:
        return True
    ours, theirs = a.read(), b.read()
    return ours.ctypes.data == theirs.ctypes.data or np.array_equal(ours, theirs)
