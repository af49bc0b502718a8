"""Sequences in one row get the hidden states that they have apart."""

import pytest
import torch

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError
from gpt2cli.model.packed_row import PackedRow
from gpt2cli.model.pieces import Piece
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=12, vocab_size=300)
CPU = torch.device("cpu")


@torch.no_grad()
@pytest.mark.parametrize(
    ("lengths", "prefixes"),
    [
        ([5], [None]),
        ([4, 4, 4], [None] * 3),
        ([1, 1], [None] * 2),
        ([7, 2, 1], [None] * 3),
        ([5, 3, 7, 4, 1], [None, 0, 0, None, 3]),
    ],
    ids=str,
)
def test_states_are_those_of_the_sequences_apart(lengths, prefixes):
    model = models.small_model(CONFIG)
    tokens = torch.randint(CONFIG.vocab_size, (sum(lengths),))
    pieces = tokens.split(lengths)
    states = model.hidden(tokens[None], PackedRow(lengths, prefixes, CPU))[0].split(lengths)
    for piece, prefix, found in zip(pieces, prefixes, states, strict=True):
        prefix = tokens[:0] if prefix is None else pieces[prefix]
        alone = model.hidden(torch.cat([prefix, piece])[None])[0, len(prefix) :]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)


def test_the_table_for_the_compiled_loops_has_a_row_for_each_piece():
    table = PackedRow([5, 3, 4], [None, 0, None], CPU).pieces(12)
    assert [Piece(*row) for row in table.tolist()] == [
        Piece(first=0, length=5, cache_row=0, cache_place=0, prefix_place=0, prefix_length=0),
        Piece(first=5, length=3, cache_row=0, cache_place=5, prefix_place=0, prefix_length=5),
        Piece(first=8, length=4, cache_row=0, cache_place=8, prefix_place=0, prefix_length=0),
    ]


def test_a_sequence_longer_than_the_window_is_refused():
    model = models.small_model(CONFIG)
    fits, does_not = (PackedRow([7, 5, n], [None, 0, 0], CPU) for n in (5, 6))
    model.hidden(torch.zeros(1, 17, dtype=torch.long), fits)
    with pytest.raises(UsageError, match="13 tokens do not fit into the model's window of 12"):
        model.hidden(torch.zeros(1, 18, dtype=torch.long), does_not)


def test_the_compiled_loops_get_the_same_positions_and_memory_of_their_type():
    row = PackedRow([5, 3, 4], [None, 0, None], CPU)
    positions = row.token_positions((1, 12), CONFIG.block_size)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]]
    assert positions[0].tolist() == row.positions(torch.zeros(1, 12), CONFIG.block_size).tolist()
    with pytest.raises(UsageError, match="8 tokens do not fit into the model's window of 7"):
        row.token_positions((1, 12), 7)
    layers = row.memory(CONFIG, 16, "float16")
    assert [(keys.shape, keys.dtype, values.shape) for keys, values in layers] == [
        ((1, 3, 12, 16), "f2", (1, 3, 12, 16))
    ] * 2
