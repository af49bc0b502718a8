"""The decoding engine: batches equal single runs, and the window slides."""

import pytest
import torch

from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.generation.prefill import prefill
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.tokenizer import END_OF_TEXT_ID
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=16, vocab_size=300)
PROMPTS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11], [12, 13, 14, 15], list(range(20, 36))]


@pytest.fixture(scope="module")
def model():
    return models.small_model(CONFIG)


def collect(model, prompts, sampling, seeds=None, **options):
    out = [[] for _ in prompts]
    for row, token in generate_tokens(model, prompts, sampling, seeds or list(range(len(prompts))), **options):
        out[row].append(token)
    return out


@torch.no_grad()
def by_rereading_everything(model, prompt, n):
    """Greedy decoding without a cache: what the engine must equal, its window included."""
    context, start = list(prompt), 0
    for _ in range(n):
        if len(context) - start > model.config.block_size:
            start = len(context) - max(1, model.config.block_size // 2)
        context.append(int(model(torch.tensor([context[start:]]))[0, -1].argmax()))
    return context[len(prompt) :]


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_greedy_past_the_window_equals_decoding_without_a_cache(model, prompt):
    sampling = SamplingConfig(max_new_tokens=60, temperature=0)
    assert collect(model, [prompt], sampling) == [by_rereading_everything(model, prompt, 60)]


@pytest.mark.parametrize("temperature", [0, 1.3])
def test_a_batch_equals_its_rows_alone(model, temperature):
    sampling = SamplingConfig(max_new_tokens=40, temperature=temperature, top_k=0, repetition_penalty=1.2)
    together = collect(model, PROMPTS, sampling, [7, 8, 9, 10])
    alone = [collect(model, [p], sampling, [seed])[0] for p, seed in zip(PROMPTS, [7, 8, 9, 10], strict=True)]
    assert together == alone
    assert {len(row) for row in together} == {40}


def test_the_same_prompt_many_times_is_read_once(model, monkeypatch):
    read = []
    decoder = TorchDecoder(model)
    hidden = decoder.hidden
    monkeypatch.setattr(decoder, "hidden", lambda idx, cache: read.append(idx.shape) or hidden(idx, cache))
    logits, cache = prefill(decoder, [[1, 2, 3], [4], [1, 2, 3]], 8)
    assert read == [(2, 3)]
    assert cache.lengths == [3, 1, 3]
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(cache.k[1][0], cache.k[1][2])


def test_finished_rows_leave_the_batch(model):
    sampling = SamplingConfig(max_new_tokens=30, temperature=1.0)
    full = collect(model, PROMPTS, sampling)
    done = {1: 3, 2: 7}
    seen = [0] * len(PROMPTS)

    def is_finished(row):
        seen[row] += 1
        return seen[row] >= done.get(row, 99)

    cut = collect(model, PROMPTS, sampling, is_finished=is_finished)
    assert cut == [full[0], full[1][:3], full[2][:7], full[3]]


def test_end_of_text_ends_a_row(monkeypatch):
    model = models.small_model(models.SMALL)
    with torch.no_grad():  # the last position's logits all point to one token
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(model.wte.weight[END_OF_TEXT_ID] * 100)
    assert collect(model, [[1, 2]], SamplingConfig(max_new_tokens=9, temperature=0)) == [[END_OF_TEXT_ID]]


def test_no_new_tokens_means_none(model):
    assert collect(model, PROMPTS, SamplingConfig(max_new_tokens=0)) == [[], [], [], []]


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_windows_work(block_size):
    model = models.small_model(GPTConfig(1, 1, 8, block_size=block_size, vocab_size=50))
    sampling = SamplingConfig(max_new_tokens=7, temperature=0)
    assert collect(model, [[3]], sampling) == [by_rereading_everything(model, [3], 7)]


def test_tokens_outside_the_models_vocabulary_are_refused(model):
    with pytest.raises(CheckpointError, match="token 300 is not among the 300 that the model knows"):
        collect(model, [[300]], SamplingConfig())


def test_the_random_state_is_left_alone(model):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    collect(model, [[1]], SamplingConfig(max_new_tokens=5))
    assert torch.equal(torch.rand(1), expected)
