"""Random completion requests, and the answers that `gpt2 generate` implies, one text after the other."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from gpt2cli import tokenizer
from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.generation.logprobs import prompt_logprobs
from gpt2cli.generation.text import Sample, TextGeneration
from gpt2cli.inference.decoder import Decoder
from tests.corpus import random_texts
from tests.serving import raw_client

TEXTS = ["", "<|endoftext|>", *(text for text in random_texts(200, seed=7) if text)]
STOPS = ["a", "e", " ", "th", "ing", "\n", "\n\n", "🙂", "The", ". "]


def random_request(choose: random.Random, window: int, longest_answer: int = 48) -> dict[str, Any]:
    """The body of a completion whose text depends on no default: with a seed, and mostly short.

    One in 12 has a prompt that nearly fills the window, so that its texts outgrow it.
    """
    body: dict[str, Any] = {
        "prompt": _random_prompt(choose, window),
        "max_tokens": choose.choice([0, 1, 2, *range(3, longest_answer)]),
        "seed": choose.randrange(2**31),
        "temperature": choose.choice([0, 0.1, 0.7, 1, 1, 1.5]),
        "top_k": choose.choice([0, 1, 5, 40, 40]),
        "stream": choose.random() < 0.5,
    }
    if choose.random() < 0.3:
        body["top_p"] = choose.choice([0.1, 0.5, 0.9, 0.99])
    if choose.random() < 0.2:
        body["min_p"] = choose.choice([0.01, 0.1, 0.5])
    if choose.random() < 0.2:
        body["repetition_penalty"] = choose.choice([0.9, 1.1, 1.3])
    if choose.random() < 0.3:
        body["stop"] = choose.sample(STOPS, choose.randint(1, 4))
    if choose.random() < 0.3:
        body["n"] = choose.randint(2, 4)
    if choose.random() < 0.3:
        body["logprobs"] = choose.choice([0, 1, 5])
    if choose.random() < 0.1:
        body["echo"] = True
    return body


def _random_prompt(choose: random.Random, window: int) -> str | list[int] | list[str]:
    if choose.random() < 1 / 12:
        return _random_ids(choose, window - choose.randrange(30))
    kind = choose.choice(["text", "ids", "ids", "texts"])
    if kind == "ids":
        return _random_ids(choose, choose.randint(1, min(window, 120)))
    if kind == "text":
        return _random_text(choose, window)
    return [_random_text(choose, window) for _ in range(choose.randint(1, 3))]


def _random_ids(choose: random.Random, count: int) -> list[int]:
    return choose.choices(range(VOCAB_SIZE), k=count)


def _random_text(choose: random.Random, window: int) -> str:
    return tokenizer.decode(tokenizer.encode(choose.choice(TEXTS))[: min(window, 120)])


async def served(port: int, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of the server's answer, with `text`, `finish_reason` and `token_logprobs`."""
    if body["stream"]:
        pieces = [piece async for event in raw_client.stream(port, body) for piece in event["choices"]]
    else:
        pieces = (await raw_client.ask(port, body))["choices"]
    count = 1 + max(piece["index"] for piece in pieces)
    found = [{"text": "", "finish_reason": None, "token_logprobs": []} for _ in range(count)]
    for piece in pieces:
        choice = found[piece["index"]]
        choice["text"] += piece["text"]
        choice["finish_reason"] = piece["finish_reason"]
        choice["token_logprobs"] += (piece["logprobs"] or {}).get("token_logprobs", [])
    return found


async def served_at(
    port: int, bodies: Sequence[dict[str, Any]], moments: Sequence[float]
) -> list[list[dict[str, Any]]]:
    """The answers to requests that are sent at these moments, in seconds from now."""

    async def later(body: dict[str, Any], moment: float) -> list[dict[str, Any]]:
        await asyncio.sleep(moment)
        return await served(port, body)

    return await asyncio.gather(*map(later, bodies, moments))


def generated(model: Decoder, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What `served` must be: `difference` compares them."""
    prompts = body["prompt"]
    if isinstance(prompts, str) or isinstance(prompts[0], int):
        prompts = [prompts]
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    sampling = SamplingConfig(
        max_new_tokens=body["max_tokens"],
        num_samples=body.get("n", 1),
        stop=tuple(body.get("stop", ())),
        **{name: body[name] for name in names if name in body},
    )
    found = []
    for prompt in prompts:
        ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        generation = TextGeneration(model, ids, sampling, body.get("logprobs"))
        for _ in generation:
            pass
        before, entries = "", list[float | None]()
        if body.get("echo"):
            before = tokenizer.decode(generation.prompt_ids)
            if "logprobs" in body:
                entries = [None, *(entry.logprob for entry in prompt_logprobs(model, generation.prompt_ids))]
        found += [_expected(sample, before, entries) for sample in generation.samples]
    return found


def _expected(sample: Sample, before: str, entries: list[float | None]) -> dict[str, Any]:
    return {
        "text": before + sample.text,
        "finish_reason": "length" if sample.finish_reason == "length" else "stop",
        "token_logprobs": entries + [entry.logprob for entry in sample.logprobs],
        "has_end_of_text": sample.finish_reason == "eos",
    }


def difference(answer: list[dict[str, Any]], expected: list[dict[str, Any]]) -> str | None:
    """How an answer differs from what is expected; None if it does not.

    The server gives the log-probability of an end of text, too. `gpt2 generate` does not.
    """
    if len(answer) != len(expected):
        return f"{len(answer)} choices in place of {len(expected)}"
    for number, (one, other) in enumerate(zip(answer, expected, strict=True)):
        last = -1 if other["has_end_of_text"] else None
        for name, value in (one | {"token_logprobs": one["token_logprobs"][:last]}).items():
            if value != other[name]:
                return f"{name} of choice {number} is {value!r} in place of {other[name]!r}"
    return None
