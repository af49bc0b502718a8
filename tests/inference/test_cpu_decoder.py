"""Packed models compute what the plain one does, as nearly as their bits allow, whatever else is in the batch."""

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.inference import cpu_decoder, decoder
from gpt2cli.inference.cpu.panel_sizes import MANY_ROWS
from gpt2cli.inference.decoder import PRECISIONS, make_decoder
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.model.packed_row import PackedRow
from gpt2cli.model.torch_precisions import round_weights
from tests import models
from tests.runner import clean_environment

pytestmark = pytest.mark.skipif(not decoder.has_kernels(), reason="no loops for this processor")
NEAR = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3, "int8": 5e-2, "int4": 0.3}
ODD = GPTConfig(n_layer=2, n_head=3, n_embd=39, block_size=40, vocab_size=301)  # of no size that kernels count in


packed_model = models.packed


def random_ids(config, *shape):
    return np.random.default_rng(0).integers(0, config.vocab_size, shape)


def assert_near(found, expected, **bounds):
    np.testing.assert_allclose(found, expected.numpy(), **bounds)


@pytest.fixture(scope="module")
def tiny():
    return load_plain("tiny", device="cpu")


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 37])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("config", [models.SMALL, ODD], ids=["even", "odd"])
def test_logits_are_those_of_the_plain_model(config, precision, rows):
    model = models.small_model(config)
    idx = random_ids(config, 1, rows)
    with torch.no_grad():
        plain = model(torch.from_numpy(idx)).numpy()
    ours = packed_model(model, precision)(idx)
    assert np.linalg.norm(plain - ours) < NEAR[precision] * np.linalg.norm(plain)


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tokens", [9, 35])
def test_they_are_those_of_the_rounded_weights(precision, tokens):
    """Much nearer than to the model's own: what is lost is lost in the weights, and little in the activations."""
    model = models.small_model(GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=35, vocab_size=97, tied=False))
    ours = packed_model(model, precision)
    for block in model.h:
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            layer.weight.copy_(round_weights(layer.weight, precision))
    around = "int8" if precision == "int4" else precision
    for table in (model.wte, model.lm_head):
        table.weight.copy_(round_weights(table.weight, around))
    idx = random_ids(model.config, 2, tokens)
    expected = model(torch.from_numpy(idx)).numpy()
    assert np.linalg.norm(expected - ours(idx)) < 5e-4 * np.linalg.norm(expected)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * 12, [4, 8], [12], [5, 1, 3, 1, 2]], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("config", [models.SMALL, ODD], ids=["even", "odd"])
def test_any_pieces_give_the_hidden_states_of_the_whole(config, pieces, batch_size):
    plain = models.small_model(config)
    ours = packed_model(plain, "fp32")
    idx = random_ids(config, batch_size, 12)
    cache, parts, start = ours.new_cache(batch_size, 20), [], 0
    for length in pieces:
        parts.append(ours.hidden(idx[:, start : start + length], cache))
        start += length
    assert cache.lengths == [12] * batch_size
    assert_near(np.concatenate(parts, axis=1), plain.hidden(torch.from_numpy(idx)), atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("new", [1, 3])
def test_rows_of_different_lengths_see_their_own_tokens(new):
    plain = models.small_model(ODD)
    ours = packed_model(plain, "fp32")
    lengths = [3, 9, 1]
    texts = [random_ids(ODD, 1, length + new) for length in lengths]
    padded = np.zeros((3, 9), np.int64)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        padded[row, :length] = text[0, :length]
    cache = ours.new_cache(3, 20)
    ours.hidden(padded, cache)
    cache.lengths = list(lengths)
    states = ours.hidden(np.concatenate([text[:, -new:] for text in texts]), cache)
    for row, text in enumerate(texts):
        assert_near(states[row], plain.hidden(torch.from_numpy(text))[0, -new:], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_sequences_in_one_row_see_their_own_tokens_and_their_beginning():
    plain = models.small_model(ODD)
    ours = packed_model(plain, "fp32")
    row = PackedRow([5, 3, 9, 4], [None, 0, None, 2], torch.device("cpu"))
    idx = random_ids(ODD, 1, 21)
    assert_near(ours.hidden(idx, row), plain.hidden(torch.from_numpy(idx), row), atol=2e-5, rtol=1e-4)


def test_more_than_the_window_is_refused():
    ours = packed_model(models.small_model(ODD), "fp32")
    with pytest.raises(UsageError, match="41 tokens do not fit into the model's window of 40"):
        ours(np.zeros((1, 41), np.int64))


def test_ids_that_are_not_in_rows_are_refused(tiny):
    with pytest.raises(UsageError, match=r"must have the shape \(B, T\), not \(3,\): \[ids\] makes one row"):
        packed_model(tiny, "fp32")([1, 2, 3])
    with pytest.raises(UsageError, match=r"must have the shape \(B, T\), not \(1, 0\)"):
        packed_model(tiny, "fp32")([[]])


def test_more_than_the_cache_takes_is_refused_and_changes_nothing():
    ours = packed_model(models.small_model(ODD), "fp32")
    cache = ours.new_cache(1, 2)
    ours.hidden(np.array([[1]]), cache)
    with pytest.raises(UsageError, match="3 tokens do not fit"):
        ours.hidden(np.array([[2, 3]]), cache)
    assert cache.lengths == [1]


@pytest.mark.parametrize("token", [-1, ODD.vocab_size])
def test_a_token_that_there_is_not_is_refused(token):
    ours = packed_model(models.small_model(ODD), "fp32")
    with pytest.raises(IndexError, match="tokens go from 0 to 300"):
        ours([[1, token]])


def test_another_thread_computes_the_same():
    ours = packed_model(models.small_model(ODD), "fp16")
    idx = np.array([[1, 2, 3]])
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(logits, ours(idx)) for logits in pool.map(ours, [idx] * 8))


def test_where_nothing_can_be_kept_it_is_compiled_anew(tmp_path):
    (tmp_path / "file").write_text("")
    code = "from gpt2cli.inference.cpu.compiling import loops, store; loops('fp32'); print(store().problem)"
    environment = clean_environment() | {"GPT2CLI_CACHE": str(tmp_path / "file")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout


def test_an_untied_head_stays_apart():
    model = models.small_model(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=50, tied=False))
    idx = [[1, 2, 3]]
    with torch.no_grad():
        assert_near(packed_model(model, "fp32")(idx), model(torch.tensor(idx)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tokens", [1, 6, 36])  # few tokens and many are multiplied in different ways
@pytest.mark.parametrize("config", [models.SMALL, ODD], ids=["even", "odd"])
def test_a_row_does_not_depend_on_its_neighbours(precision, tokens, config):
    """To the bit, in batches of any size."""
    model = packed_model(models.small_model(config), precision)
    idx = random_ids(config, 9, tokens)
    alone = np.concatenate([model(idx[row : row + 1]) for row in range(9)])
    for first, last in ((0, 2), (0, 4), (4, 9), (0, 9)):
        assert np.array_equal(model(idx[first:last]), alone[first:last])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("config", [models.SMALL, ODD], ids=["even", "odd"])
def test_a_token_has_the_same_logits_alone_in_a_draft_and_in_a_text(precision, config):
    """To the bit, for texts of fewer than MANY_ROWS tokens."""
    model = packed_model(models.small_model(config), precision)
    idx = random_ids(config, 1, MANY_ROWS - 1)
    whole = model(idx)
    for sizes in ([1] * 31, [5, 1, 1, 4, 8, 1, 11], [30, 1], [3] * 10 + [1]):
        cache = model.new_cache(1, MANY_ROWS)
        parts = np.split(idx, np.cumsum(sizes)[:-1], axis=1)
        assert np.array_equal(np.concatenate([model.head(model.hidden(part, cache)) for part in parts], axis=1), whole)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_long_prompt_has_the_same_states_in_passes_of_any_size(precision, monkeypatch):
    """To the bit. Batches of different sizes are divided into passes at different tokens."""
    config = GPTConfig(n_layer=1, n_head=2, n_embd=40, block_size=200, vocab_size=97)
    model, idx = packed_model(models.small_model(config), precision), random_ids(config, 3, 197)
    whole = model.hidden(idx, model.new_cache(3, 200))
    for size in (32, 50, 196):
        monkeypatch.setattr(cpu_decoder, "PIECE_TOKENS", size)
        assert np.array_equal(model.hidden(idx[1:2], model.new_cache(1, 200)), whole[1:2])


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_the_result(precision, value):
    model = models.small_model(ODD)
    model.wpe.weight[2, 5] = value
    logits = packed_model(model, precision)([[1, 2, 3, 4]])
    assert not np.isfinite(logits[0, 2:]).any()


@pytest.mark.parametrize("make", [models.packed, lambda model, precision: make_decoder(model, "cpu", precision)])
@pytest.mark.parametrize(("precision", "value", "fits"), [
    ("fp16", 6e4, True), ("fp16", 1e6, False), ("int4", 5e5, True), ("int4", 1e6, False), ("int4", -1e30, False),
    ("bf16", 1e30, True), ("int8", 1e30, True), ("fp32", 1e30, True),
])  # fmt: skip
def test_weights_that_a_precision_cannot_hold_are_refused(precision, value, fits, make):
    model = models.small_model(GPTConfig(n_layer=1, n_head=2, n_embd=64, block_size=8, vocab_size=100))
    with torch.no_grad():
        model.h[0].mlp.c_fc.weight[3] = value
    if fits:
        assert make(model, precision).precision == precision
    else:
        with pytest.raises(CheckpointError, match=rf"is too large for {precision}: use --precision fp32"):
            make(model, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_without_kernels_weights_have_the_same_values(precision, tiny):
    model = make_decoder(copy.deepcopy(tiny), "cpu", precision)
    assert isinstance(model, TorchDecoder) and model.precision == precision
    weight = tiny.h[1].mlp.c_fc.weight
    assert torch.equal(model.gpt.h[1].mlp.c_fc.weight.float(), round_weights(weight, precision))
    ids = [1, 2, 3]
    assert len(list(generate_tokens(model, [ids], SamplingConfig(max_new_tokens=3, temperature=0), [0]))) == 3


def test_an_unknown_precision_is_refused():
    from gpt2cli import load

    with pytest.raises(UsageError, match="precision must be auto, fp32"):
        load("tiny", precision="int3")


WINDOW = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=300, vocab_size=301)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("length", [1, 2, MANY_ROWS - 1, MANY_ROWS, MANY_ROWS + 1, 65, 129, 290])
def test_pieces_of_a_prompt_give_the_bits_of_one_pass(precision, length):
    """Also in a row of a larger cache whose other rows are used between two pieces."""
    ours = packed_model(models.small_model(WINDOW), precision)
    idx, other = random_ids(WINDOW, 1, length), random_ids(WINDOW, 1, 1)
    alone = ours.new_cache(1, length)
    expected = ours.hidden(idx, alone)
    for size in {1, 7, MANY_ROWS - 1, MANY_ROWS, MANY_ROWS + 1, 48, 64, 100, 257}:
        cache = ours.new_cache(3, WINDOW.block_size)
        parts = []
        for start in range(0, length, size):
            parts.append(ours.hidden(idx[:, start : start + size], cache.view([1]), whole=length))
            ours.hidden(other, cache.view([2]))
        assert np.array_equal(np.concatenate(parts, axis=1), expected), size
        assert cache.lengths[:2] == [0, length]
        for stored, whole in ((cache.keys, alone.keys), (cache.values, alone.values)):
            assert np.array_equal(stored[:, 1, :, :length], whole[:, 0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_over_some_rows_gives_the_bits_of_each_alone(precision):
    ours = packed_model(models.small_model(WINDOW), precision)
    lengths = [3, 40, 1, 99]
    texts = [random_ids(WINDOW, 1, length + 1) for length in lengths]
    cache, expected = ours.new_cache(4, WINDOW.block_size), []
    for row, text in enumerate(texts):
        alone = ours.new_cache(1, WINDOW.block_size)
        ours.hidden(text[:, :-1], alone)
        expected.append(ours.head(ours.hidden(text[:, -1:], alone)[0]))
        ours.hidden(text[:, :-1], cache.view([row]))
    for rows in ([2], [3, 0], [1, 2, 3]):
        found = ours.head(ours.hidden(np.concatenate([texts[row][:, -1:] for row in rows]), cache.view(rows)))
        assert np.array_equal(found[:, 0], np.concatenate([expected[row] for row in rows]))
        cache.view(rows).lengths = [lengths[row] for row in rows]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("new", [1, 5, 40])
def test_numbers_that_are_not_finite_do_not_outlive_a_cleared_row(precision, new):
    ours = packed_model(models.small_model(WINDOW), precision)
    idx = random_ids(WINDOW, 1, new)
    expected = ours.hidden(idx, ours.new_cache(1, WINDOW.block_size))
    cache = ours.new_cache(2, WINDOW.block_size)
    size = WINDOW.head_size  # the rest pads the keys, and no pass writes there
    cache.keys[..., :size] = cache.values[..., :size] = np.nan
    cache.lengths = [0, 200]
    cache.clear(1)
    assert np.array_equal(ours.hidden(idx, cache.view([1])), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", [39, 48, 64])
def test_a_pass_with_numbers_that_are_not_finite_changes_no_later_one(precision, width):
    """Also in models whose rows are padded."""
    config = GPTConfig(n_layer=2, n_head=3 if width % 3 == 0 else 4, n_embd=width, block_size=60, vocab_size=301)
    ours = packed_model(models.small_model(config), precision)
    idx = random_ids(config, 1, 60)
    expected = [ours.hidden(idx[:, :length], ours.new_cache(1, 60)) for length in (1, 3, 33)]
    positions = ours._arrays["wpe"]
    kept = positions.copy()
    for spoilt in (1, 3, 33):
        positions[:] = np.nan
        assert np.isnan(ours.hidden(idx[:, :spoilt], ours.new_cache(1, 60))).all()
        positions[:] = kept
        found = [ours.hidden(idx[:, :length], ours.new_cache(1, 60)) for length in (1, 3, 33)]
        assert all(map(np.array_equal, found, expected))
