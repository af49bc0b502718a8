"""Log-probabilities of generated tokens equal those of full passes, on every road that chooses tokens."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt2cli.config import MOST_LOGPROBS, VOCAB_SIZE, GPTConfig, SamplingConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.generation.logprobs import KeptLogprobs, prompt_logprobs, token_logprobs
from gpt2cli.generation.sampling import cut
from gpt2cli.generation.text import TextGeneration
from gpt2cli.inference.candidates import candidates
from gpt2cli.inference.gpu.graph_decoder import GraphDecoder
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode, show
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=16, vocab_size=300)
PROMPTS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11], [12, 13, 14, 15], list(range(20, 36))]
SAMPLING = SamplingConfig(max_new_tokens=20, temperature=1.5, seed=5, num_samples=3)
ENGINES = {
    "plain": lambda model: model,
    "kernels": lambda model: models.packed(model, "fp32"),
    "bursts": lambda model: GraphDecoder(copy.deepcopy(model), fused=False),
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """A model and a decoder of it."""
    model = models.small_model(CONFIG)
    return model, ENGINES[request.param](model)


@pytest.fixture(scope="module")
def model():
    return models.small_model()


def collect(decoder, prompts, sampling, top, **options):
    """The tokens of each prompt, with and without log-probabilities, which are the same, and the log-probabilities."""
    kept = KeptLogprobs(top, [[] for _ in prompts])
    runs = []
    for logprobs in (None, kept):
        runs.append([[] for _ in prompts])
        for row, token in generate_tokens(
            decoder, prompts, sampling, range(len(prompts)), logprobs=logprobs, **options
        ):
            runs[-1][row].append(token)
    assert runs[0] == runs[1]
    return runs[0], kept.rows


@torch.no_grad()
def by_full_passes(model, prompt, tokens):
    """The log-probabilities (T, V) after each context. A full window continues with its newer half."""
    context, start, found = list(prompt), 0, []
    for token in tokens:
        if len(context) - start > model.config.block_size:
            start = len(context) - model.config.block_size // 2
        found.append(model(torch.tensor([context[start:]]))[0, -1].log_softmax(dim=-1))
        context.append(token)
    return torch.stack(found)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 1.3, "top_k": 0},
        {"temperature": 0.5, "top_k": 3, "top_p": 0.8, "min_p": 0.1},
        {"repetition_penalty": 1.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [slice(0, 4), slice(1, 2)], ids=["batch", "alone"])
def test_they_equal_those_of_full_passes_past_the_window(engine, rows, options):
    model, decoder = engine
    sampling = SamplingConfig(max_new_tokens=40, **options)
    texts, logprobs = collect(decoder, PROMPTS[rows], sampling, 4)
    for prompt, tokens, entries in zip(PROMPTS[rows], texts, logprobs, strict=True):
        expected = by_full_passes(model, prompt, tokens)
        assert [entry.id for entry in entries] == tokens
        chosen = expected.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert np.allclose([entry.logprob for entry in entries], chosen, atol=1e-4)
        assert sum(entry.logprob for entry in entries) == pytest.approx(float(chosen.sum()), abs=1e-4 * len(tokens))
        likeliest = expected.topk(4).values
        assert np.allclose([[each.logprob for each in entry.top] for entry in entries], likeliest, atol=1e-4)
        for entry, row in zip(entries, expected, strict=True):
            assert np.allclose([row[each.id] for each in entry.top], [each.logprob for each in entry.top], atol=1e-4)


@pytest.mark.parametrize("speculate", [True, False])
def test_drafts_change_no_log_probability(speculate):
    decoder, prompt = models.tiny("fp32"), encode("The king said to the queen, and the king said to the queen, and the")
    sampling = SamplingConfig(max_new_tokens=60, temperature=0)
    [tokens], [entries] = collect(decoder, [prompt], sampling, 1, speculate=speculate)
    whole = prompt_logprobs(decoder, [*prompt, *tokens], 1)[-len(tokens) :]
    assert [entry.id for entry in entries] == [entry.id for entry in whole] == tokens
    assert np.allclose([entry.logprob for entry in entries], [entry.logprob for entry in whole], atol=1e-4)
    assert all(entry.top[0].id == entry.id and entry.top[0].logprob == entry.logprob for entry in entries)


def test_a_sample_has_an_entry_for_each_of_its_tokens(model):
    free = TextGeneration.from_text(model, "One day", SAMPLING, logprobs=2)
    list(free)
    assert [len(sample.logprobs) for sample in free.samples] == [20, 20, 20]
    word = free.samples[1].text[10:14]
    stopped = TextGeneration.from_text(model, "One day", replace(SAMPLING, stop=(word,)), logprobs=2)
    list(stopped)
    assert stopped.samples[1].finish_reason == "stop"
    for before, after in zip(free.samples, stopped.samples, strict=True):
        assert [entry.id for entry in after.logprobs] == after.tokens
        pairs = zip(before.logprobs, after.logprobs, strict=False)
        assert all(math.isclose(a.logprob, b.logprob, abs_tol=1e-4) for a, b in pairs)


def test_the_end_of_the_text_has_no_entry():
    model = models.small_model()
    with torch.no_grad():  # all logits point to one token
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(model.wte.weight[END_OF_TEXT_ID] * 100)
    run = TextGeneration.from_text(model, "One", replace(SAMPLING, temperature=0), logprobs=1)
    list(run)
    assert [(sample.finish_reason, sample.tokens, sample.logprobs) for sample in run.samples] == [("eos", [], [])] * 3


def test_without_a_wish_there_are_none(model):
    run = TextGeneration.from_text(model, "One day", SAMPLING)
    list(run)
    assert not any(sample.logprobs for sample in run.samples)
    only_chosen = TextGeneration.from_text(model, "One day", SAMPLING, logprobs=0)
    list(only_chosen)
    assert [sample.text for sample in only_chosen.samples] == [sample.text for sample in run.samples]
    assert all(entry.top == () for sample in only_chosen.samples for entry in sample.logprobs)


def test_they_are_the_probabilities_of_sampling_without_cuts():
    """Also for a table with padding: its rows are no tokens, however large their logits are."""
    logits = np.random.default_rng(0).normal(size=(3, VOCAB_SIZE + 47)).astype(np.float32) * 4
    logits[:, VOCAB_SIZE:] = 50
    values, ids = candidates(logits, VOCAB_SIZE)
    probabilities = cut(values, SamplingConfig(temperature=1, top_k=0))
    for i, row in enumerate(token_logprobs(logits, ids[:, 7].tolist(), 100)):
        assert row.id == ids[i, 7] and math.exp(row.logprob) == pytest.approx(probabilities[i, 7], rel=1e-5)
        assert [each.id for each in row.top] == ids[i, :100].tolist()
        assert np.allclose(np.exp([each.logprob for each in row.top]), probabilities[i, :100], rtol=1e-5)


def test_equal_logits_are_in_the_order_of_their_ids():
    [found] = token_logprobs(np.zeros((1, 64), np.float32), [9], 3)
    assert [each.id for each in found.top] == [0, 1, 2]
    assert found.logprob == pytest.approx(-math.log(64))


def test_large_logits_are_finite():
    logits = np.array([[1e30, 0, -1e30], [-3e38, -3e38, -3e38]], np.float32)
    first, second = token_logprobs(logits, [0, 1], 3)
    assert [each.logprob for each in first.top] == [0, pytest.approx(-1e30), pytest.approx(-2e30)]
    assert second.logprob == pytest.approx(-math.log(3), abs=1e32)


def test_a_dict_is_what_the_command_prints():
    [found] = token_logprobs(np.zeros((1, 300), np.float32), [222], 1)
    value = pytest.approx(-math.log(300))
    assert found.as_dict() == {"token": show(222), "id": 222, "logprob": value, "top": [["!", 0, value]]}


@pytest.mark.parametrize("length", [0, 1, 2, 37])
def test_those_of_a_prompt_are_its_targets(model, length):
    ids = list(range(1000, 1000 + length))
    for decoder in (model, models.packed(model, "fp32")):
        found = prompt_logprobs(decoder, ids, 2)
        assert [entry.id for entry in found] == ids[1:]
        if found:
            with torch.no_grad():
                expected = model(torch.tensor([ids]))[0].log_softmax(dim=-1)
            chosen = expected[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
            assert np.allclose([entry.logprob for entry in found], chosen, atol=1e-4)


def test_a_prompt_is_scored_in_pieces():
    ids = encode("The old man looked at the sea. " * 20)[:150]
    decoder = models.tiny("fp32")
    found = prompt_logprobs(decoder, ids)
    logits = torch.from_numpy(decoder([ids])[0]).log_softmax(dim=-1)
    expected = logits[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert np.allclose([entry.logprob for entry in found], expected, atol=1e-4)


def test_what_is_refused(model):
    for top in (-1, MOST_LOGPROBS + 1):
        with pytest.raises(UsageError, match=f"logprobs must be from 0 to {MOST_LOGPROBS}, not {top}"):
            TextGeneration.from_text(model, "One", SAMPLING, logprobs=top)
        with pytest.raises(UsageError, match="logprobs must be"):
            prompt_logprobs(model, [1, 2], top)
    with pytest.raises(UsageError):
        prompt_logprobs(model, list(range(38)))
    with pytest.raises(CheckpointError, match="token 300 is not among"):
        prompt_logprobs(models.small_model(CONFIG), [1, 300])


def test_transformers_gives_the_same_scores(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = models.small_model()
    theirs = transformers.GPT2LMHeadModel.from_pretrained(models.save_hub_directory(model, tmp_path)).eval()
    prompt = encode("One day")
    run = TextGeneration(model, prompt, SamplingConfig(max_new_tokens=20, temperature=0), logprobs=0)
    list(run)
    given = torch.tensor([prompt])
    out = theirs.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=20, pad_token_id=END_OF_TEXT_ID,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    scores = theirs.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    assert out.sequences[0, len(prompt) :].tolist() == run.samples[0].tokens
    assert np.allclose([entry.logprob for entry in run.samples[0].logprobs], scores[0], atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [[math.inf, 0.0], [math.nan, 0.0], [-math.inf, -math.inf]], ids=str)
def test_logits_that_are_not_finite_give_nan_without_a_warning(wrong):
    [found] = token_logprobs(np.array([wrong], np.float32), [1], 0)
    assert math.isnan(found.logprob)
