"""Attention computes what numpy computes in fp64, and a query's result never depends on what is computed beside it."""

import numpy as np
import pytest

from gpt2cli.inference.cpu.attention import attend, store_keys_values
from gpt2cli.inference.cpu.attention_tasks import TASK_QUERIES, attention_blocks, attention_scratch, key_size
from gpt2cli.inference.decoder import has_kernels
from tests.inference.cpu.running import run_compiled

pytestmark = pytest.mark.skipif(not has_kernels(), reason="no loops for this processor")

H, S = 2, 300
CONTINUED = [(0, 1, 0, 0, 0, 0), (1, 1, 1, 299, 0, 299), (2, 7, 2, 3, 0, 3), (9, 150, 3, 40, 0, 40)]
"""Pieces of four rows of a cache, each after what its row has cached."""
PACKED = [
    (0, 20, 0, 0, 0, 0),
    (20, 9, 0, 20, 0, 20),
    (29, 70, 0, 29, 0, 20),
    (99, 1, 0, 99, 0, 20),
    (100, 2, 0, 100, 0, 0),
]
"""Pieces of a packed row. The second to the fourth have the first one as their prefix."""


def run(qkv, pieces, keys, values):
    """Store the keys and values of all tokens, attend in two parts, the last tasks first. Returns (m, C)."""
    C = qkv.shape[1] // 3
    blocks = attention_blocks(np.array(pieces, np.int64))
    tasks, out = len(blocks) * H, np.full((len(qkv), C), np.nan, np.float32)
    scratch = np.full(attention_scratch(S, C // H), np.nan, np.float32)
    for attending in (False, True):
        for first, last in ((tasks // 3, tasks), (0, tasks // 3)):
            arguments = (C, qkv, blocks, keys, values)
            if attending:
                run_compiled(attend, *arguments, out, first, last, scratch)
            else:
                run_compiled(store_keys_values, *arguments, first, last)
    return out


def exact(qkv, pieces, keys, values):
    """The same in fp64, from keys and values that are stored already."""
    C = qkv.shape[1] // 3
    D, out = C // H, np.empty((len(qkv), C))
    keys, values = (as_numbers(stored)[..., :D].astype(np.float64) for stored in (keys, values))
    for first, n, row, place, prefix, length in pieces:
        places = [*range(prefix, prefix + length), *range(place, place + n)]
        k, v = keys[row][:, places], values[row][:, places]
        q = qkv[first : first + n, :C].reshape(n, H, D).swapaxes(0, 1).astype(np.float64)
        scores = q @ k.swapaxes(1, 2) / np.sqrt(D)
        scores[:, np.arange(length + n) > length + np.arange(n)[:, None]] = -np.inf
        weights = np.exp(scores - scores.max(2, keepdims=True))
        out[first : first + n] = (weights / weights.sum(2, keepdims=True) @ v).swapaxes(0, 1).reshape(n, C)
    return out


def as_numbers(stored):
    return stored.view(np.float16) if stored.dtype == np.float16 else stored


def memory(rng, pieces, D, dtype):
    """Keys and values with random prefixes. They are NaN where no piece's prefix is, but zero in the padding."""
    both = np.full((2, 1 + max(piece[2] for piece in pieces), H, S, key_size(D)), np.nan, np.float16)
    both[..., D:] = 0
    for _, _, row, _, prefix, length in pieces:
        both[:, row, :, prefix : prefix + length, :D] = rng.standard_normal((2, H, length, D))
    return both.view(np.float16) if dtype == np.float16 else both.astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("pieces", [CONTINUED, PACKED], ids=["continued", "packed"])
@pytest.mark.parametrize("D", [64, 20, 80])
def test_attention_is_numpys(D, pieces, dtype):
    rng = np.random.default_rng(0)
    m = sum(piece[1] for piece in pieces)
    qkv = (rng.standard_normal((m, 3 * H * D)) * 2).astype(np.float32)
    keys, values = memory(rng, pieces, D, dtype)
    out = run(qkv, pieces, keys, values)
    np.testing.assert_allclose(out, exact(qkv, pieces, keys, values), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("D", [64, 20])
def test_a_query_is_the_same_alone_in_a_draft_in_a_batch_and_in_a_packed_row(D, dtype):
    rng = np.random.default_rng(0)
    prefix, n = 30, 2 * TASK_QUERIES + 9
    keys, values = memory(rng, [(0, n, 0, prefix, 0, prefix)], D, dtype)
    qkv = rng.standard_normal((prefix + n, 3 * H * D)).astype(np.float32)
    whole = run(qkv, [(0, prefix + n, 0, 0, 0, 0)], keys, values)
    for start, length in ((0, 1), (1, 1), (15, 1), (40, 1), (n + prefix - 1, 1), (61, 2), (70, 3), (100, 5), (3, 130)):
        part = run(qkv[start : start + length], [(0, length, 0, start, 0, start)], keys, values)
        assert (part == whole[start : start + length]).all()
    # as a piece with a prefix that lies elsewhere in the row, after another piece
    order = [*range(prefix), *rng.integers(0, n, 7), *range(prefix, prefix + n)]
    pieces = [(0, prefix, 0, 0, 0, 0), (prefix, 7, 0, prefix, 0, 0), (prefix + 7, n, 0, prefix + 7, 0, prefix)]
    packed = run(qkv[order], pieces, *memory(rng, [(0, 0, 0, 0, 0, 0)], D, dtype))
    assert (packed[prefix + 7 :] == whole[prefix:]).all()
    pieces = [(b * (prefix + n), prefix + n, b, 0, 0, 0) for b in range(3)]
    batch = run(np.tile(qkv, (3, 1)), pieces, *np.tile((keys, values), (1, 3, 1, 1, 1)))
    assert (batch == np.tile(whole, (3, 1))).all()


def test_fp16_is_rounded_to_nearest_and_large_numbers_stay_finite():
    C = H * 20
    qkv = np.random.default_rng(0).standard_normal((3, 3 * C)).astype(np.float32)
    qkv[1, C : C + 4] = 1e6, -1e6, 65519.9, 1 + 2**-11
    keys, values = np.zeros((2, 1, H, S, key_size(20)), np.float16)
    run(qkv, [(0, 3, 0, 5, 0, 5)], keys, values)
    wanted = np.clip(qkv, -65504, 65504).astype(np.float16).reshape(3, 3, H, 20)
    for stored, part in ((keys, 1), (values, 2)):
        assert (as_numbers(stored)[0, :, 5:8, :20] == wanted[:, part].swapaxes(0, 1)).all()
        assert not stored[..., 20:].any()
        assert not stored[0, :, [*range(5), *range(8, S)]].any()


def test_blocks_cover_all_queries_and_the_longest_work_comes_first():
    pieces = np.array([(0, 1, 0, 9, 0, 9), (1, 3 * TASK_QUERIES + 1, 1, 4, 0, 4)], np.int64)
    blocks = attention_blocks(pieces)
    assert blocks.shape == (5, 8)
    covered = {(first + start + t) for first, *_, start, count in blocks.tolist() for t in range(count)}
    assert covered == set(range(3 * TASK_QUERIES + 2))
    work = blocks[:, 7] * (blocks[:, 5] + blocks[:, 6] + blocks[:, 7])
    assert (np.diff(work) <= 0).all()
