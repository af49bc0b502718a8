"""Measuring speed: the tokens and bytes that are counted, and the formulas; never the speed itself."""

import time

import pytest
import torch

from gpt2cli import background, bench
from gpt2cli.config import BenchConfig, GPTConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.inference.cpu import bandwidth
from gpt2cli.inference.decoder import has_kernels
from gpt2cli.inference.torch_decoder import TorchDecoder
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=40, vocab_size=301)


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch):
    monkeypatch.setattr(bandwidth, "BUFFER_BYTES", 2**20)


@pytest.mark.skipif(not has_kernels(), reason="no compiled loops here")
@pytest.mark.parametrize(
    ("precision", "each", "around"), [("fp32", 4, 4), ("fp16", 2, 2), ("int8", 1, 1), ("int4", 0.5 + 2 / 32, 1)]
)
def test_the_bytes_of_a_token_are_those_counted_by_hand(precision, each, around):
    config = GPTConfig(n_layer=2, n_head=3, n_embd=192, block_size=40, vocab_size=320)
    model = models.packed(models.small_model(config), precision)
    C, V = config.n_embd, config.vocab_size
    vectors = 4 * (2 * 9 * C + 4 * C)  # biases, scales, and two norms
    counted = 2 * (each * 12 * C * C + vectors) + 4 * 2 * C + around * V * C + 4 * 2 * V
    assert model.weight_bytes() == pytest.approx(counted, abs=2 * 9)  # of what has no groups, an empty place


def test_the_bytes_of_a_model_that_is_not_packed_leave_out_the_positions():
    model = TorchDecoder(models.small_model(CONFIG))
    parameters = sum(parameter.numel() for parameter in model.gpt.parameters())
    assert model.weight_bytes() == 4 * (parameters - CONFIG.block_size * CONFIG.n_embd)


def test_exactly_so_many_tokens_are_decoded_those_of_greedy_decoding():
    model = TorchDecoder(models.small_model(CONFIG))
    run = bench.run_once(model, [3, 1, 4], 20)
    greedy = generate_tokens(model, [[3, 1, 4]], SamplingConfig(max_new_tokens=20, temperature=0), [0], speculate=False)
    assert run.tokens == [token for _, token in greedy]
    assert (run.prompt_tokens, len(run.tokens)) == (3, 20)
    assert run.prefill_tok_s == 3 / run.prefill_s
    assert run.decode_tok_s == 19 / run.decode_s


def test_an_end_of_text_does_not_end_a_run():
    model = models.small_model(models.SMALL)
    with torch.no_grad():
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(model.wte.weight[50256] * 1000)
    assert bench.run_once(TorchDecoder(model), [1], 9).tokens == [50256] * 9


def test_speeds_are_medians_of_the_runs_after_the_first():
    model = TorchDecoder(models.small_model(CONFIG))
    calls: list[int] = []
    measured = bench.measure(model, BenchConfig(4, 5, 3), lambda: calls.append(1))
    runs = measured.runs
    assert len(calls) == 4
    assert [len(run.tokens) for run in runs] == [5] * 3
    assert runs[0].tokens == runs[1].tokens == runs[2].tokens
    speed = bench.summarize("small", model, 1.5, measured)
    assert speed.prefill_tok_s == sorted(run.prefill_tok_s for run in runs)[1]
    assert speed.decode_tok_s == sorted(run.decode_tok_s for run in runs)[1]
    assert speed.roofline_tok_s == pytest.approx(speed.memory_bandwidth_gb_s * 1e9 / speed.weight_bytes_per_token)
    assert speed.roofline_fraction == pytest.approx(speed.decode_tok_s / speed.roofline_tok_s)


def test_runs_begin_after_the_work_in_the_background():
    done = []
    background.start(lambda go_on: time.sleep(0.2) or "done", done.append)
    bench.measure(TorchDecoder(models.small_model(CONFIG)), BenchConfig(4, 5, 1), lambda: done.append("run"))
    assert done == ["done", "run", "run"]


def test_what_does_not_fit_into_the_window_is_refused():
    model = TorchDecoder(models.small_model(CONFIG))
    assert len(bench.measure(model, BenchConfig(30, 10, 1)).runs) == 1
    with pytest.raises(UsageError, match="window of 40: ask for 1 fewer"):
        bench.measure(model, BenchConfig(30, 11, 1))
