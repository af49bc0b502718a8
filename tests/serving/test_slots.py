"""The slots of all kinds of decoders: each slot gives what a cache of one row gives."""

import copy

import numpy as np
import pytest

from gpt2cli.config import GPTConfig
from gpt2cli.inference.gpu.graph_decoder import GraphDecoder
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.serving.slots import CacheSlots, GraphSlots, make_slots
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=60, vocab_size=301)
DECODERS = {
    "compiled": lambda model: models.packed(model, "fp32"),
    "torch": lambda model: TorchDecoder(copy.deepcopy(model)),
    "graphs": lambda model: GraphDecoder(copy.deepcopy(model), fused=False),
}


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request):
    return DECODERS[request.param](models.small_model(CONFIG))


def ids_of(length, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, length).tolist()


def read(slots, slot, ids):
    """Read a prompt in pieces. Returns the hidden states (T, C) of all."""
    slots.clear(slot)
    pieces = [ids[start : start + slots.piece_tokens] for start in range(0, len(ids), slots.piece_tokens)]
    return np.concatenate([np.asarray(slots.read(slot, piece, len(ids))) for piece in pieces])


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


def test_a_graph_decoder_has_slots_in_its_graph(decoder):
    assert type(make_slots(decoder, 2)) is (CacheSlots if decoder.sessions is None else GraphSlots)


def test_a_session_of_graphs_belongs_to_its_slots():
    decoder = DECODERS["graphs"](models.small_model(CONFIG))
    slots = GraphSlots(decoder, 2)
    with decoder.sessions.session(2, CONFIG.block_size, None) as other:
        assert other is not slots._session


def test_the_memory_is_that_of_all_windows(decoder):
    rows = 4 if decoder.sessions is None else 5  # one more, which reads the prompts
    size = decoder.new_cache(rows, CONFIG.block_size).nbytes
    assert make_slots(decoder, 4).nbytes == size


def test_prompts_and_steps_in_any_slots(decoder):
    slots = make_slots(decoder, 4)
    texts = {slot: ids_of(length, slot) for slot, length in ((2, 55), (0, 1), (3, 33))}
    for slot, ids in texts.items():
        states = read(slots, slot, ids)
        assert_near(states, np.asarray(decoder.hidden(np.array([ids]), decoder.new_cache(1, 60)))[0])
        assert slots.length(slot) == len(ids)
    for turn in ([0, 2, 3], [3], [2, 0], [0, 3]):
        tokens = ids_of(len(turn), sum(turn))
        logits = slots.step(turn, tokens)
        assert logits.shape == (len(turn), CONFIG.vocab_size) and logits.dtype == np.float32
        for slot, token, row in zip(turn, tokens, logits, strict=True):
            texts[slot].append(token)
            assert_near(row, decoder([texts[slot]])[0, -1])


def test_a_copy_continues_the_first_tokens_of_another_slot(decoder):
    slots = make_slots(decoder, 3)
    prompt = ids_of(20)
    read(slots, 1, prompt)
    slots.step([1], [5])
    slots.copy(1, 2, len(prompt))
    slots.copy(1, 1, len(prompt))
    assert slots.length(1) == slots.length(2) == len(prompt)
    for row, token in zip(slots.step([1, 2], [8, 9]), [8, 9], strict=True):
        assert_near(row, decoder([[*prompt, token]])[0, -1])


def test_a_cleared_slot_is_free_of_numbers_that_are_not_finite(decoder):
    slots = make_slots(decoder, 2)
    spoil(decoder, slots)
    prompt, other = ids_of(4, 1), ids_of(50, 2)
    read(slots, 0, other)
    read(slots, 1, prompt)
    logits = slots.step([0, 1], [1, 2])  # in one batch with a longer one
    assert_near(logits, [decoder([[*other, 1]])[0, -1], decoder([[*prompt, 2]])[0, -1]])
    slots.clear(0)
    slots.copy(1, 0, len(prompt))
    assert_near(slots.step([0], [2])[0], logits[1])


def spoil(decoder, slots):
    """Fill a window of each slot with tokens whose keys and values are NaN."""
    weight = decoder.gpt.wpe.weight.data.numpy() if hasattr(decoder, "gpt") else decoder._arrays["wpe"]
    before = weight.copy()
    weight[:] = np.nan
    for slot in range(2):
        assert np.isnan(read(slots, slot, ids_of(CONFIG.block_size))).all()
    weight[:] = before


def test_slots_that_are_not_used_never_run_out_of_room(decoder):
    slots = make_slots(decoder, 2)
    for _ in range(3):
        text = ids_of(5)
        read(slots, 1, text)
        while len(text) < CONFIG.block_size:
            text.append(len(text))
            [logits] = slots.step([1], text[-1:])
        assert_near(logits, decoder([text])[0, -1])
    read(slots, 0, ids_of(3))
    assert_near(slots.step([0], [1])[0], decoder([[*ids_of(3), 1]])[0, -1])
