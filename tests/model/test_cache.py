"""The KV cache against whole forward passes. `test_gpt.py` has prompts of different lengths."""

import pytest
import torch

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError
from gpt2cli.model.cache import KVCache
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=20, vocab_size=300)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 3, 1, 2]], ids=str)
@pytest.mark.parametrize("rows", [1, 3])
def test_any_chunks_give_the_states_of_the_whole(chunks, rows):
    model, cache = models.small_model(CONFIG), KVCache(CONFIG, rows, 12)
    idx = torch.randint(CONFIG.vocab_size, (rows, 12))
    states = [model.hidden(part, cache) for part in idx.split(chunks, dim=1)]
    assert cache.lengths == [12] * rows
    torch.testing.assert_close(torch.cat(states, dim=1), model.hidden(idx), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("new", [1, 3])
def test_selected_rows_keep_their_own_tokens(new):
    model, cache = models.small_model(CONFIG), KVCache(CONFIG, 3, 20)
    idx, lengths, order = torch.randint(CONFIG.vocab_size, (3, 9)), [3, 9, 1], [2, 0, 0]
    model.hidden(idx, cache)
    cache.lengths = list(lengths)
    cache.select(order)
    fresh = torch.randint(CONFIG.vocab_size, (3, new))
    states = model.hidden(fresh, cache)
    for i, row in enumerate(order):
        whole = torch.cat([idx[row, : lengths[row]], fresh[i]])[None]
        torch.testing.assert_close(states[i], model.hidden(whole)[0, -new:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("capacity", "room"), [(5, 5), (50, 20)])
def test_more_than_the_capacity_or_the_window_is_refused_and_changes_nothing(capacity, room):
    model, cache = models.small_model(CONFIG), KVCache(CONFIG, 1, capacity)
    model.hidden(torch.zeros(1, room - 1, dtype=torch.long), cache)
    with pytest.raises(UsageError, match=f"{room + 1} tokens do not fit into the model's window of {room}"):
        model.hidden(torch.zeros(1, 2, dtype=torch.long), cache)
    assert cache.lengths == [room - 1]


@torch.no_grad()
def test_a_row_takes_the_tokens_of_another_cache():
    model, cache, other = models.small_model(CONFIG), KVCache(CONFIG, 2, 20), KVCache(CONFIG, 1, 5)
    idx, newer, fresh = (torch.randint(CONFIG.vocab_size, shape) for shape in ((2, 9), (1, 5), (2, 1)))
    model.hidden(idx, cache)
    model.hidden(newer, other)
    cache.copy_row(1, other)
    assert cache.lengths == [9, 5]
    states = model.hidden(fresh, cache)
    for row, before in enumerate((idx[:1], newer)):
        whole = torch.cat([before, fresh[row : row + 1]], dim=1)
        torch.testing.assert_close(states[row], model.hidden(whole)[0, -1:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("rows", [[1], [0, 1], [2, 0], [1, 2, 3], [3, 1]], ids=str)
@pytest.mark.parametrize("new", [1, 3])
@pytest.mark.parametrize("lengths", [[3, 9, 1, 6], [4, 4, 4, 4], [0, 0, 0, 0]], ids=str)
def test_a_pass_over_a_view_fills_only_its_rows(rows, new, lengths):
    model, cache = models.small_model(CONFIG), KVCache(CONFIG, 4, 20)
    idx, fresh = torch.randint(CONFIG.vocab_size, (4, 9)), torch.randint(CONFIG.vocab_size, (len(rows), new))
    model.hidden(idx, cache)
    cache.lengths = list(lengths)
    before = [stored.clone() for stored in cache.k + cache.v]
    states = model.hidden(fresh, cache.view(rows))
    for i, row in enumerate(rows):
        whole = torch.cat([idx[row, : lengths[row]], fresh[i]])[None]
        torch.testing.assert_close(states[i], model.hidden(whole)[0, -new:], atol=1e-5, rtol=1e-4)
    assert cache.lengths == [length + new * (row in rows) for row, length in enumerate(lengths)]
    others = [row for row in range(4) if row not in rows]
    for now, then in zip(cache.k + cache.v, before, strict=True):
        assert torch.equal(now[others], then[others])


@torch.no_grad()
def test_a_row_takes_the_tokens_of_a_view():
    model, cache = models.small_model(CONFIG), KVCache(CONFIG, 3, 20)
    idx, fresh = torch.randint(CONFIG.vocab_size, (3, 9)), torch.randint(CONFIG.vocab_size, (1, 2))
    model.hidden(idx, cache)
    cache.lengths = [9, 7, 9]
    cache.copy_row(2, cache.view([1]))
    assert cache.lengths == [9, 7, 7]
    whole = torch.cat([idx[1:2, :7], fresh], dim=1)
    torch.testing.assert_close(model.hidden(fresh, cache.view([2])), model.hidden(whole)[:, -2:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_cleared_row_keeps_no_number_that_is_not_finite():
    model, cache = models.small_model(CONFIG), KVCache(CONFIG, 2, 20)
    idx = torch.randint(CONFIG.vocab_size, (2, 5))
    for stored in cache.k + cache.v:
        stored[1] = torch.nan
    cache.lengths = [0, 20]
    cache.clear(1)
    model.hidden(idx[:1], cache.view([0]))
    model.hidden(idx[1:, :2], cache.view([1]))
    states = model.hidden(idx[:, :1], cache)  # in one batch with a longer row, with a mask
    assert cache.lengths == [6, 3] and states.isfinite().all()
