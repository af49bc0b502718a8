"""Weights lie in memory that is theirs, in large pages, and no other memory of the process is touched."""

import sys
from pathlib import Path

import pytest
import torch

from gpt2cli.inference.cpu.huge_pages import CHUNK, PAGE, Arena
from gpt2cli.inference.cpu_decoder import CPUDecoder
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8])
def test_tensors_are_zeros_of_their_own(dtype):
    arena = Arena()
    first, second = arena.zeros((3, 5), dtype), arena.zeros((7,), dtype)
    first.fill_(1)
    assert (first.shape, first.dtype, first.is_contiguous()) == ((3, 5), dtype, True)
    assert second.tolist() == [0] * 7
    assert arena.zeros((0, 4), dtype).shape == (0, 4)


def test_more_than_a_chunk_is_one_tensor():
    arena = Arena()
    large = arena.zeros((CHUNK + 1,), torch.uint8)
    large[-1] = 1
    assert arena.zeros((5,), torch.uint8).tolist() == [0] * 5


def test_memory_outlives_its_arena_and_not_its_tensors():
    tensor = Arena().zeros((PAGE,), torch.uint8)
    tensor.fill_(7)
    assert int(tensor[-1]) == 7


@linux
def test_nothing_is_asked_for_but_the_arena():
    before = advised()
    tensor = Arena().zeros((10,), torch.float32)
    assert tensor.data_ptr() % PAGE == 0
    new = set(advised()) - set(before)
    if not new and not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no large pages")
    assert sum(end - begin for begin, end in new) <= CHUNK + PAGE + sum(end - begin for begin, end in before)
    assert any(begin <= tensor.data_ptr() < end for begin, end in new)
    address = tensor.data_ptr()
    del tensor
    assert not any(begin <= address < end for begin, end in advised())


@linux
@pytest.mark.skipif(not has_kernels(), reason="Numba is not there")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_packed_weights_are_in_it(precision):
    model = CPUDecoder(models.small_model(), precision)
    spans = advised()
    for matrix in (model._token_table, model._head, *(block.mlp_c_fc for block in model._blocks)):
        address = matrix.weights.ctypes.data
        assert any(begin <= address < end for begin, end in spans)


def test_too_much_is_a_memory_error():
    with pytest.raises((MemoryError, RuntimeError)):
        Arena().zeros((2**60,), torch.uint8)
