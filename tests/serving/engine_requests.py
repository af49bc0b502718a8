"""Requests for tests of the engine."""

import random
from dataclasses import replace

from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.serving.text_request import TextRequest
from gpt2cli.tokenizer import END_OF_TEXT_ID

WINDOW = 90
CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=WINDOW)


def random_ids(rng, length):
    return tuple(rng.randrange(END_OF_TEXT_ID) for _ in range(length))


def random_text(rng, ids):
    sampling = SamplingConfig(
        max_new_tokens=rng.choice([0, 1, 2, 7, 20, 20, 40, WINDOW + 20]),
        temperature=rng.choice([0, 0.3, 0.7, 1.0, 1.5]),
        top_k=rng.choice([40, 40, 40, 3, 1000, 0]),
        top_p=rng.choice([1.0, 1.0, 0.9, 0.3]),
        min_p=rng.choice([0.0, 0.0, 0.1]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.3]),
        seed=rng.randrange(2**31),
        stop=tuple(rng.sample(["e", "th", " a", "\n", "ing", "é", "0"], rng.choice([0, 0, 1, 3]))),
    )
    return TextRequest(
        ids,
        sampling,
        logprobs=rng.choice([None, None, 0, 3]),
        prompt_logprobs=rng.choice([None, None, 0, 2]),
        frequency_penalty=rng.choice([0.0, 0.0, 0.7, -0.5]),
        presence_penalty=rng.choice([0.0, 0.0, 1.1]),
        logit_bias=rng.choice([{}, {}, {END_OF_TEXT_ID: 4.0}, {END_OF_TEXT_ID: -100, 13: 2.5}]),
    )


def with_few_choices(text):
    sampling = replace(text.sampling, temperature=min(text.sampling.temperature, 0.3), top_k=3)
    return replace(text, sampling=sampling)


def random_request(rng):
    """Up to 3 prompts, some of which may be equal, with up to 3 texts each."""
    lengths = [1, 2, 5, 31, 32, 33, 63, 64, 65, 80, WINDOW - 1, WINDOW]
    prompts = [random_ids(rng, rng.choice(lengths)) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    texts = []
    for ids in rng.choices(prompts, k=len(prompts)):
        first = random_text(rng, ids)
        for i in range(rng.choice([1, 1, 2, 3])):
            sampling = replace(first.sampling, seed=first.sampling.seed + i)
            texts.append(replace(first, sampling=sampling))
    return texts


def text_of(length, max_new_tokens=5, seed=0, **fields):
    """A text with a prompt of this length, which grows as long as it may."""
    ids = random_ids(random.Random(seed), length)
    sampling = SamplingConfig(max_new_tokens=max_new_tokens, seed=seed)
    return TextRequest(ids, sampling, **{"logit_bias": {END_OF_TEXT_ID: -100}, **fields})


def with_seed(text, seed):
    return replace(text, sampling=replace(text.sampling, seed=seed))
