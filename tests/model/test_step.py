"""The decode step computes what the whole model does."""

import pytest
import torch

from gpt2cli.config import GPTConfig
from gpt2cli.model.gpt import KVCache
from gpt2cli.model.step import step
from tests import models

CONFIG = GPTConfig(n_layer=3, n_head=3, n_embd=48, block_size=32, vocab_size=200)


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * 12, [4, 8], [12], [5, 1, 3, 1, 2]], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_any_pieces_give_the_hidden_states_of_the_whole(model, pieces, batch_size):
    idx = torch.randint(0, CONFIG.vocab_size, (batch_size, 12))
    cache, parts, start = KVCache(model, batch_size, 20), [], 0
    for length in pieces:
        parts.append(step(model, idx[:, start : start + length], cache))
        start += length
    assert cache.lengths == [12] * batch_size
    torch.testing.assert_close(torch.cat(parts, dim=1), model.hidden(idx), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("new", [1, 3])
def test_rows_of_different_lengths_see_their_own_tokens(model, new):
    lengths = [3, 9, 1]
    texts = [torch.randint(0, CONFIG.vocab_size, (1, length + new)) for length in lengths]
    padded = torch.zeros(3, 9, dtype=torch.long)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        padded[row, :length] = text[0, :length]
    cache = KVCache(model, 3, 20)
    model.hidden(padded, cache)
    cache.lengths = list(lengths)
    ours = step(model, torch.cat([text[:, -new:] for text in texts]), cache)
    for row, text in enumerate(texts):
        torch.testing.assert_close(ours[row], model.hidden(text)[0, -new:], atol=1e-5, rtol=1e-5)
