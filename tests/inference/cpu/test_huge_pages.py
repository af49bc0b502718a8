"""Weights lie in memory that is theirs, in large pages, and no other memory of the process is touched."""

import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2cli.inference.cpu.huge_pages import ALIGNMENT, PAGE, RESERVATION, Arena, mapped
from gpt2cli.inference.decoder import has_kernels
from tests import models

SMAPS = Path("/proc/self/smaps")
linux = pytest.mark.skipif(sys.platform != "linux" or not SMAPS.exists(), reason="large pages are asked of Linux")


def advised():
    """The beginnings and ends of this process's memory that large pages were asked for, as Linux sees it."""
    found, span = [], ""
    for line in SMAPS.read_text().splitlines():
        if line.startswith("VmFlags") and " hg" in line:
            found.append(tuple(int(address, 16) for address in span.split("-")))
        elif "-" in line.split(" ")[0]:
            span = line.split(" ")[0]
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int8])
def test_arrays_are_zeros_of_their_own(dtype):
    arena = Arena()
    first, second = arena.zeros((3, 5), dtype), arena.zeros((7,), dtype)
    first[:] = 1
    assert (first.shape, first.dtype, first.flags.c_contiguous) == ((3, 5), dtype, True)
    assert second.tolist() == [0] * 7
    assert first.ctypes.data % ALIGNMENT == second.ctypes.data % ALIGNMENT == 0
    assert arena.zeros((0, 4), dtype).shape == (0, 4)


def test_more_than_a_chunk_is_one_array():
    arena = Arena()
    large = arena.zeros((RESERVATION + 1,), np.uint8)
    large[-1] = 1
    assert arena.zeros((5,), np.uint8).tolist() == [0] * 5


def test_memory_outlives_its_arena_and_not_its_arrays():
    array = Arena().zeros((PAGE,), np.uint8)
    array[:] = 7
    assert array[-1] == 7


@linux
def test_nothing_is_asked_for_but_the_arena():
    before = advised()
    array = Arena().zeros((10,), np.float32)
    assert array.ctypes.data % PAGE == 0
    new = set(advised()) - set(before)
    if not new and not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no large pages")
    assert sum(end - begin for begin, end in new) <= RESERVATION + PAGE + sum(end - begin for begin, end in before)
    assert any(begin <= array.ctypes.data < end for begin, end in new)
    address = array.ctypes.data
    del array
    assert not any(begin <= address < end for begin, end in advised())


@linux
@pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_packed_weights_are_in_the_arena(precision):
    decoder = models.packed(models.small_model(), precision)
    spans = advised()
    for name, array in decoder._arrays.items():
        address = array.ctypes.data
        assert any(begin <= address < end for begin, end in spans), name


@linux
def test_a_file_of_aligned_blocks_is_mapped_if_the_system_has_it_in_large_pages(tmp_path):
    path, content = tmp_path / "large", bytes(range(256)) * (8 * PAGE // 256)
    path.write_bytes(content)
    with path.open("rb") as file:
        found = mapped(file)
    if found is None:
        pytest.skip("this system has files in small pages")
    assert found.tobytes() == content
    assert not found.flags.writeable


@linux
def test_a_file_in_small_pages_is_not_mapped(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(bytes(PAGE // 2))
    with path.open("rb") as file:
        assert mapped(file) is None


def test_too_much_is_a_memory_error():
    with pytest.raises(MemoryError):
        Arena().zeros((2**60,), np.uint8)
