"""The decoding engine: prompts in, tokens out, one step of the model at a time."""

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.generation.prompt_lookup import PromptLookup
from gpt2cli.generation.sampling import Sampler, check
from gpt2cli.inference.gpu.cuda_graphs import BURST, Burst, Decoder, Graphs
from gpt2cli.model.gpt import GPT, KVCache
from gpt2cli.tokenizer import END_OF_TEXT_ID


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    is_finished: Callable[[int], bool] = lambda row: False,
    speculate: bool = True,
    end: int | None = END_OF_TEXT_ID,
) -> Iterator[tuple[int, int]]:
    """Continue each prompt, all in one batch; yield (row, token id) as the tokens come.

    A row ends with its `max_new_tokens`th token, with the token `end` (which is yielded), or before the next step
    once `is_finished(row)` says so. Prompts may differ in length and hold at most `block_size` tokens, at least one.
    When a row has filled the window, its older half is forgotten and the rest read anew: positions are absolute, so
    the window cannot slide by less than a whole reading. A row that is alone, or left alone, is decoded several tokens
    at a time where its text repeats itself, unless `speculate` is False; the tokens are the same. With CUDA graphs
    (`model.graphs`), tokens come in bursts, and a row that has ended is computed on with the others and left out.
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
        return context[-1] != end and len(context) < limit[row] and not is_finished(row)

    if model.graphs is not None:
        yield from _decode_by_graphs(model, model.graphs, sampler, contexts, capacity, goes_on)
        return
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


def _decode_by_graphs(
    model: GPT,
    graphs: Graphs,
    sampler: Sampler,
    contexts: list[list[int]],
    capacity: int,
    goes_on: Callable[[int], bool],
) -> Iterator[tuple[int, int]]:
    """`generate` where the model has graphs. All rows stay in the batch to the end, so that one graph does."""
    config = sampler.config
    with torch.inference_mode():
        logits, cache = prefill(model, contexts, max(map(len, contexts)))
        tokens = sampler.choose(logits, contexts, range(len(contexts)))
    if config.max_new_tokens == 1:
        yield from enumerate(tokens)
        return
    alike = config.repetition_penalty == 1  # otherwise a choice takes all tokens so far, which the host has
    with graphs.decoder(len(contexts), capacity, config if alike else None, sampler.choose_on_device) as decoder:
        decoder.load(cache, tokens)
        del cache, logits
        for row, token in enumerate(tokens):
            contexts[row].append(token)
            yield row, token
        rows = [row for row in range(len(contexts)) if goes_on(row)]
        go_on = _decode_in_bursts if alike else _decode_by_logits
        yield from go_on(model, decoder, sampler, contexts, rows, goes_on)


def _decode_in_bursts(
    model: GPT,
    decoder: Decoder,
    sampler: Sampler,
    contexts: list[list[int]],
    rows: list[int],
    goes_on: Callable[[int], bool],
) -> Iterator[tuple[int, int]]:
    """Go on with `rows`, whose tokens the graph chooses. While one burst is read here, the GPU computes the next."""
    left = sampler.config.max_new_tokens - 1 if rows else 0
    waiting: Burst | None = None
    while left or waiting:
        room = min(model.config.block_size - decoder.lengths[row] for row in rows)
        if left and not room and waiting is None:
            _reread_full(model, decoder, contexts, rows)
            continue
        steps = min(BURST, left, room)
        left -= steps
        uniform = sampler.uniform(steps) if steps and sampler.config.temperature else None
        ahead = decoder.launch(steps, uniform) if steps else None
        for tokens, best in waiting.read() if waiting else ():
            check([best[row] for row in rows], [contexts[row] for row in rows])
            for row in rows:
                contexts[row].append(tokens[row])
                yield row, tokens[row]
            rows = [row for row in rows if goes_on(row)]
            if not rows:
                return
        waiting = ahead


def _decode_by_logits(
    model: GPT,
    decoder: Decoder,
    sampler: Sampler,
    contexts: list[list[int]],
    rows: list[int],
    goes_on: Callable[[int], bool],
) -> Iterator[tuple[int, int]]:
    """Go on with `rows`, whose tokens are chosen here."""
    while rows:
        _reread_full(model, decoder, contexts, rows)
        with torch.inference_mode():
            logits = decoder.logits_after([context[-1] for context in contexts])
            tokens = sampler.choose(logits[rows], [contexts[row] for row in rows], rows)
        for row, token in zip(rows, tokens, strict=True):
            contexts[row].append(token)
            yield row, token
        rows = [row for row in rows if goes_on(row)]


def _reread_full(model: GPT, decoder: Decoder, contexts: Sequence[Sequence[int]], rows: Sequence[int]) -> None:
    """Replace those of `rows` that fill the window by the newer half of their tokens, less the last."""
    for row in rows:
        if decoder.lengths[row] == model.config.block_size:
            with torch.inference_mode():
                decoder.replace(row, _newer_half(model, contexts[row]))


def prefill(model: GPT, contexts: Sequence[Sequence[int]], capacity: int) -> tuple[Tensor, KVCache]:
    """Read whole prompts in one pass: the logits (B, V) of what follows each, and the cache for going on.

    A prompt that stands in the batch many times is read once.
    """
    distinct = list(dict.fromkeys(tuple(context) for context in contexts))
    cache = KVCache(model, len(distinct), capacity)
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
    fresh = _newer_half(model, context)
    cache.lengths[row] = length = fresh.lengths[0] if fresh else 0
    if fresh:
        for mine, new in zip(cache.k + cache.v, fresh.k + fresh.v, strict=True):
            mine[row, :, :length] = new[0, :, :length]


def _newer_half(model: GPT, context: Sequence[int]) -> KVCache | None:
    """The newer half of a window's tokens, less the last, read anew; None where that is nothing."""
    kept = context[-max(1, model.config.block_size // 2) : -1]
    return prefill(model, [kept], len(kept))[1] if kept else None


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
