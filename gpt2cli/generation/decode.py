"""From prompts to new tokens: prefill, then one step of the model after the other."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.generation.prefill import decode_next, prefill
from gpt2cli.generation.prompt_lookup import PromptLookup
from gpt2cli.generation.rows import Rows
from gpt2cli.generation.sampling import Sampler
from gpt2cli.inference.decoder import Cache, Decoder, as_decoder
from gpt2cli.tokenizer import END_OF_TEXT_ID

if TYPE_CHECKING:
    from gpt2cli.generation.logprobs import KeptLogprobs
    from gpt2cli.model.gpt import GPT


def generate_tokens(
    model: "Decoder | GPT",
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    is_finished: Callable[[int], bool] = lambda row: False,
    speculate: bool = True,
    end: int | None = END_OF_TEXT_ID,
    logprobs: "KeptLogprobs | None" = None,
) -> Iterator[tuple[int, int]]:
    """Continue each prompt, all in one batch; yield (row, token id) for each new token.

    A row ends with its `max_new_tokens`th token, with the token `end` (which is yielded), or before the next step
    if `is_finished(row)`. Prompts may differ in length; each has between 1 and `block_size` tokens. A row that has
    filled the window forgets its older half: see `decode_next`. With `speculate`, a single row, or the last one that is
    left, is decoded several tokens at a time where its text repeats itself; the tokens are the same. A decoder with
    `sessions` uses CUDA graphs, without `speculate`. `logprobs` gets the log-probabilities of each new token before the
    token is yielded. Raises CheckpointError for a token that the model does not know.
    """
    if not prompts or not sampling.max_new_tokens:
        return
    decoder = as_decoder(model)
    check_token(max(map(max, prompts)), decoder.config.vocab_size)
    rows = Rows(decoder, prompts, Sampler(sampling, seeds, decoder.candidates), is_finished, end, logprobs)
    capacity = min(decoder.config.block_size, max(rows.limits))
    if decoder.sessions is not None:
        from gpt2cli.generation.burst_decoding import decode_in_bursts  # imports torch

        yield from decode_in_bursts(decoder, decoder.sessions, rows, capacity)
        return
    logits, cache = prefill(decoder, rows.contexts, capacity)
    active = list(range(len(prompts)))
    while len(active) > 1 or not speculate:
        yield from rows.choose(logits, active)
        left = rows.continuing(active)
        if not left:
            return
        if len(left) < len(active):
            cache.select([active.index(row) for row in left])
        active = left
        logits = decode_next(decoder, [rows.contexts[row] for row in active], cache)
    yield from _decode_one_row(decoder, rows, active[0], logits, cache)


def _decode_one_row(decoder: Decoder, rows: Rows, row: int, logits: Any, cache: Cache) -> Iterator[tuple[int, int]]:
    """Continue the only row that the cache holds by verifying drafts. `logits` (1, V) are those after its context.

    Every token is drawn from the model's distribution after the tokens before it, with the same random number as
    without drafts. A draft only decides how many of these distributions are computed in one step ("Accelerating Large
    Language Model Decoding with Speculative Sampling", Chen et al. 2023, for drafts without probabilities).
    """
    context, limit = rows.contexts[row], rows.limits[row]
    lookup = PromptLookup()
    draft: list[int] = []
    while True:
        before = len(context)
        for i, guess in enumerate([*draft, None]):
            [(_, token)] = rows.choose(logits[i : i + 1], [row])
            yield row, token
            if not rows.continues(row):
                return
            if token != guess:
                break
        accepted = len(context) - before - 1
        lookup.learn(accepted, len(draft))
        cache.lengths = [cache.lengths[0] - len(draft) + accepted]
        room = min(cache.capacity - cache.lengths[0], limit - len(context)) - 1
        draft = lookup.draft(context, room)
        logits = decode_next(decoder, [context], cache, draft)


def check_token(largest: int, vocab_size: int) -> None:
    """Raise CheckpointError if a text's largest token is not in a model's vocabulary. Rows of padding are no tokens."""
    known = min(vocab_size, VOCAB_SIZE)
    if largest >= known:
        raise CheckpointError(
            f"token {largest} is not among the {known} that the model knows: it was made for another tokenizer"
        )


def random_seed() -> int:
    """A random seed that is short enough to type."""
    return random.SystemRandom().randrange(2**31)
