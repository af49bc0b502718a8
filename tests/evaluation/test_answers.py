"""Answers in a batch against answers one by one."""

from dataclasses import replace

import pytest

from gpt2cli import tokenizer
from gpt2cli.checkpoints.load import load
from gpt2cli.config import ANSWERS, GPTConfig
from gpt2cli.evaluation import answers as module
from gpt2cli.evaluation.answers import answer, batch_size
from gpt2cli.generation.text import generate
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.prompts import ALPACA
from tests import models

ASKED = ["Tell a tale.", "Name a bird.", "What is the opposite of this word?", "Where do fish live? " * 5]


@pytest.fixture(scope="module")
def tiny():
    return load("tiny")


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_in_a_batch_they_are_what_they_are_one_by_one(tiny, temperature, monkeypatch):
    prompts = {3 * i: tokenizer.encode(ALPACA.prompt(text)) for i, text in enumerate(ASKED)}
    sampling = replace(ANSWERS, max_new_tokens=12, temperature=temperature, seed=5, stop=(" Sea", " king"))
    together = dict(answer(tiny, prompts, sampling))
    alone = {key: dict(answer(tiny, {key: prompt}, sampling))[key] for key, prompt in prompts.items()}
    monkeypatch.setattr(module, "BATCH", 2)
    in_twos = dict(answer(tiny, prompts, sampling))
    assert together == alone == in_twos
    assert len({said.tokens for said in together.values()}) > 1  # some left the batch before others
    assert together[3].text == generate(tiny, ALPACA.prompt(ASKED[1]), replace(sampling, seed=5 + 3)).strip()


def test_why_an_answer_ended(tiny):
    prompts = {0: tokenizer.encode("Once upon a time"), 1: tokenizer.encode("Once upon a")}
    [said, _] = sorted(answer(tiny, prompts, replace(ANSWERS, max_new_tokens=3)))
    assert (said[1].tokens, said[1].finish_reason) == (3, "length")
    stopped = dict(answer(tiny, prompts, replace(ANSWERS, max_new_tokens=30, stop=(" little",))))[0]
    assert stopped.finish_reason == "stop" and "little" not in stopped.text


def test_a_batch_is_as_large_as_memory_allows():
    small = models.small_model()
    assert batch_size(TorchDecoder(small), 37) == module.BATCH
    large = models.small_model(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=10**6, vocab_size=10))
    a_row = 2 * 8 * 4 * 10**6
    assert batch_size(TorchDecoder(large), 10**7) == module.CACHE_BYTES // a_row
