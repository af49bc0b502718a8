"""The decoding engine: prompts in, tokens out, one step of the model at a time."""

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.generation.lookup import PromptLookup
from gpt2cli.generation.sampling import Sampler
from gpt2cli.model.gpt import GPT, KVCache
from gpt2cli.tokenizer import END_OF_TEXT_ID


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    is_finished: Callable[[int], bool] = lambda row: False,
    speculate: bool = True,
) -> Iterator[tuple[int, int]]:
    """Continue each prompt, all in one batch; yield (row, token id) as the tokens come.

    A row ends with its `max_new_tokens`th token, with `<|endoftext|>` (which is yielded), or before the next step
    once `is_finished(row)` says so. Prompts may differ in length and hold at most `block_size` tokens, at least one.
    When a row has filled the window, its older half is forgotten and the rest read anew: positions are absolute, so
    the window cannot slide by less than a whole reading. A row that is alone, or left alone, is decoded several tokens
    at a time where its text repeats itself, unless `speculate` is False; the tokens are the same.
    """
    contexts = [list(prompt) for prompt in prompts]
    limit = [len(context) + sampling.max_new_tokens for context in contexts]
    rows = list(range(len(prompts))) if sampling.max_new_tokens else []
    if not rows:
        return
    _check_vocabulary(model, contexts)
    sampler = Sampler(sampling, seeds)
    capacity = min(model.config.block_size, max(limit))

    def goes_on(row: int) -> bool:
        context = contexts[row]
        return context[-1] != END_OF_TEXT_ID and len(context) < limit[row] and not is_finished(row)

    speculate = speculate and model.one_token is None  # a graph is for one token
    with torch.inference_mode():
        logits, cache = prefill(model, contexts, capacity)
    while len(rows) > 1 or not speculate:
        with torch.inference_mode():
            tokens = sampler.choose(logits, [contexts[row] for row in rows], rows)
        for row, token in zip(rows, tokens, strict=True):
            contexts[row].append(token)
            yield row, token
        stay = [i for i, row in enumerate(rows) if goes_on(row)]
        if not stay:
            return
        with torch.inference_mode():
            if len(stay) < len(rows):
                rows = [rows[i] for i in stay]
                cache.select(stay)
            logits = decode_next(model, [contexts[row] for row in rows], cache)
    [row] = rows
    yield from _decode_alone(model, sampler, row, contexts[row], limit[row], goes_on, logits, cache)


def _decode_alone(
    model: GPT,
    sampler: Sampler,
    row: int,
    context: list[int],
    limit: int,
    goes_on: Callable[[int], bool],
    logits: Tensor,
    cache: KVCache,
) -> Iterator[tuple[int, int]]:
    """Go on with the one row in the cache, verifying drafts: `logits` (1, V) are those after the context.

    Every token is drawn from the model's own distribution after the tokens before it, with the number that it would
    have been drawn with anyway. A draft only decides how many of these distributions are computed in one step
    ("Accelerating Large Language Model Decoding with Speculative Sampling", Chen et al. 2023, for certain drafts).
    """
    lookup = PromptLookup()
    draft: list[int] = []
    while True:
        before = len(context)
        for i, guess in enumerate([*draft, None]):
            with torch.inference_mode():
                [token] = sampler.choose(logits[i : i + 1], [context], [row])
            context.append(token)
            yield row, token
            if not goes_on(row):
                return
            if token != guess:
                break
        accepted = len(context) - before - 1
        lookup.learn(accepted, len(draft))
        cache.lengths = [cache.lengths[0] - len(draft) + accepted]
        room = min(cache.capacity - cache.lengths[0], limit - len(context)) - 1
        draft = lookup.draft(context, room)
        with torch.inference_mode():
            logits = decode_next(model, [context], cache, draft)


def prefill(model: GPT, contexts: Sequence[Sequence[int]], capacity: int) -> tuple[Tensor, KVCache]:
    """Read whole prompts in one pass: the logits (B, V) of what follows each, and the cache for going on.

    A prompt that stands in the batch many times is read once.
    """
    distinct = list(dict.fromkeys(tuple(context) for context in contexts))
    cache = model.cache_type(model, len(distinct), capacity)
    longest = max(map(len, distinct))
    idx = torch.tensor(
        [[*context, *[0] * (longest - len(context))] for context in distinct], device=model.wpe.weight.device
    )
    hidden = model.hidden(idx, cache)
    cache.lengths = [len(context) for context in distinct]
    last = hidden[torch.arange(len(distinct)), [length - 1 for length in cache.lengths]]
    logits = model.head(last)
    if len(distinct) < len(contexts):
        source = [distinct.index(tuple(context)) for context in contexts]
        cache.select(source)
        logits = logits[source]
    return logits, cache


def decode_next(model: GPT, contexts: Sequence[Sequence[int]], cache: KVCache, draft: Sequence[int] = ()) -> Tensor:
    """The logits (B, V) after each context's last token, which is not yet in the cache; all before it are.

    A `draft` of what comes next, for a batch of one, makes it (1 + len(draft), V): those after each of its tokens too.
    """
    for row, length in enumerate(cache.lengths):
        if length == model.config.block_size:
            _reread(model, contexts[row], cache, row)
    idx = torch.tensor([[context[-1], *draft] for context in contexts], device=model.wpe.weight.device)
    return model.head(model.hidden(idx, cache).flatten(0, 1))


def _reread(model: GPT, context: Sequence[int], cache: KVCache, row: int) -> None:
    """Replace a full row of the cache by the newer half of its tokens, less the last, which comes next."""
    kept = context[-max(1, model.config.block_size // 2) : -1]
    cache.lengths[row] = len(kept)
    if kept:
        _, fresh = prefill(model, [kept], len(kept))
        for mine, new in zip(cache.k + cache.v, fresh.k + fresh.v, strict=True):
            mine[row, :, : len(kept)] = new[0, :, : len(kept)]


def _check_vocabulary(model: GPT, contexts: Sequence[Sequence[int]]) -> None:
    largest = max(map(max, contexts))
    if largest >= model.config.vocab_size:
        raise CheckpointError(
            f"token {largest} is not among the {model.config.vocab_size} that the model knows: "
            "it was made for another tokenizer"
        )


def random_seed() -> int:
    """A seed for those who gave none, short enough to type again."""
    return random.SystemRandom().randrange(2**31)
