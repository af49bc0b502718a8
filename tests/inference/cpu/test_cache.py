"""The cache of the compiled loops: its tables, and the rows that it keeps. test_cpu_decoder.py runs the loops."""

import numpy as np
import pytest

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError
from gpt2cli.inference.cpu.cache import CPUCache
from gpt2cli.model.pieces import Piece

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=20, vocab_size=300)


def filled(lengths, capacity=12, dtype=np.float32):
    """A cache whose numbers are all different, as far as the type can tell them apart."""
    cache = CPUCache(CONFIG, len(lengths), capacity, key_size=16, dtype=dtype)
    cache.lengths = list(lengths)
    for offset, stored in enumerate((cache.keys, cache.values)):
        stored[:] = np.arange(stored.size).reshape(stored.shape) + offset * stored.size
    return cache


def test_positions_and_table_describe_the_newest_tokens():
    cache = filled([3, 7])
    assert cache.token_positions((2, 2), CONFIG.block_size).tolist() == [[3, 4], [7, 8]]
    assert cache.lengths == [5, 9]
    assert [Piece(*row) for row in cache.pieces(2).tolist()] == [
        Piece(first=0, length=2, cache_row=0, cache_place=3, prefix_place=0, prefix_length=3),
        Piece(first=2, length=2, cache_row=1, cache_place=7, prefix_place=0, prefix_length=7),
    ]


@pytest.mark.parametrize(("capacity", "window", "room"), [(5, 20, 5), (50, 20, 20)])
def test_more_than_the_capacity_or_the_window_is_refused_and_changes_nothing(capacity, window, room):
    cache = filled([1, room - 1], capacity)
    with pytest.raises(UsageError, match=f"{room + 1} tokens do not fit into the model's window of {room}"):
        cache.token_positions((2, 2), window)
    assert cache.lengths == [1, room - 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_is_that_of_the_layers(dtype):
    cache = filled([3, 7], dtype=dtype)
    layers = cache.memory(CONFIG, 16, dtype)
    assert len(layers) == CONFIG.n_layer
    assert cache.nbytes == sum(keys.nbytes + values.nbytes for keys, values in layers)
    for layer, (keys, values) in enumerate(layers):
        assert keys.shape == values.shape == (2, 3, 12, 16)
        assert keys.dtype == values.dtype == dtype
        assert keys.flags.c_contiguous and values.flags.c_contiguous
        assert np.shares_memory(keys, cache.keys[layer]) and np.shares_memory(values, cache.values[layer])


def test_selected_rows_keep_their_tokens():
    before, cache = filled([3, 9, 1]), filled([3, 9, 1])
    cache.select([2, 0, 0])
    assert cache.lengths == [1, 3, 3]
    for new, old in ((cache.keys, before.keys), (cache.values, before.values)):
        assert new.shape == old.shape
        for place, row in enumerate([2, 0, 0]):
            assert np.array_equal(new[:, place, :, : cache.lengths[place]], old[:, row, :, : before.lengths[row]])


def test_a_row_takes_the_tokens_of_another_cache():
    before, cache, other = filled([3, 9]), filled([3, 9]), filled([5], capacity=5)
    cache.copy_row(1, other)
    assert cache.lengths == [3, 5]
    assert np.array_equal(cache.keys[:, 1, :, :5], other.keys[:, 0])
    assert np.array_equal(cache.values[:, 1, :, :5], other.values[:, 0])
    assert np.array_equal(cache.keys[:, 0], before.keys[:, 0])


def test_a_view_describes_its_rows_and_shares_their_memory_and_lengths():
    cache = filled([3, 7, 5, 0])
    view = cache.view([2, 0])
    assert view.lengths == [5, 3]
    assert view.token_positions((2, 2), CONFIG.block_size).tolist() == [[5, 6], [3, 4]]
    assert cache.lengths == [5, 7, 7, 0]
    assert [Piece(*row) for row in view.pieces(2).tolist()] == [
        Piece(first=0, length=2, cache_row=2, cache_place=5, prefix_place=0, prefix_length=5),
        Piece(first=2, length=2, cache_row=0, cache_place=3, prefix_place=0, prefix_length=3),
    ]
    for (keys, values), layer in zip(view.memory(CONFIG, 16, np.float32), range(CONFIG.n_layer), strict=True):
        assert np.shares_memory(keys, cache.keys[layer]) and np.shares_memory(values, cache.values[layer])
    view.lengths = [1, 2]
    cache.clear(1)
    assert cache.lengths == [2, 0, 1, 0]


def test_a_view_that_has_no_room_changes_nothing():
    cache = filled([3, 7])
    with pytest.raises(UsageError, match="13 tokens do not fit"):
        cache.view([1]).token_positions((1, 6), CONFIG.block_size)
    assert cache.view([0]).token_positions((1, 6), CONFIG.block_size).tolist() == [[3, 4, 5, 6, 7, 8]]
    assert cache.lengths == [9, 7]


def test_a_row_takes_the_tokens_of_a_view():
    before, cache = filled([3, 9, 4]), filled([3, 9, 4])
    cache.copy_row(0, cache.view([1]))
    assert cache.lengths == [9, 9, 4]
    for new, old in ((cache.keys, before.keys), (cache.values, before.values)):
        assert np.array_equal(new[:, 0, :, :9], old[:, 1, :, :9])
        assert np.array_equal(new[:, 1:], old[:, 1:])
