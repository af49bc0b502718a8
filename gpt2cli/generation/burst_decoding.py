"""Decoding by CUDA graphs, a burst of tokens per launch. Ended rows stay in the batch: see `cuda_graphs.py`."""

from collections.abc import Iterator, Sequence
from typing import cast

from gpt2cli.generation.prefill import newer_half, prefill
from gpt2cli.generation.rows import Rows
from gpt2cli.generation.sampling import check_finite
from gpt2cli.inference.decoder import Decoder
from gpt2cli.inference.gpu.cuda_graphs import BURST, Burst, GraphSession, GraphSessions
from gpt2cli.model.cache import KVCache


def decode_in_bursts(decoder: Decoder, sessions: GraphSessions, rows: Rows, capacity: int) -> Iterator[tuple[int, int]]:
    """Continue the rows; yield (row, token id) for each new token. A session holds up to `capacity` tokens per row."""
    config, everyone = rows.sampler.config, range(len(rows.contexts))
    logits, cache = prefill(decoder, rows.contexts, max(map(len, rows.contexts)))
    first = rows.choose(logits, everyone)
    if config.max_new_tokens == 1:
        yield from first
        return
    # a repetition penalty needs all tokens so far, which only the host has; log-probabilities need all logits there
    on_device = config.repetition_penalty == 1 and rows.logprobs is None
    sampling = config if on_device else None
    with sessions.session(len(everyone), capacity, sampling) as session:
        session.load(cast(KVCache, cache), [token for _, token in first])
        del cache, logits
        yield from first
        active = rows.continuing(everyone)
        decode = _choose_in_graph if on_device else _choose_on_host
        yield from decode(decoder, session, rows, active)


def _choose_in_graph(
    decoder: Decoder, session: GraphSession, rows: Rows, active: list[int]
) -> Iterator[tuple[int, int]]:
    """Continue the rows `active`; the graph chooses tokens. The host reads a burst while the GPU computes the next."""
    left = rows.sampler.config.max_new_tokens - 1 if active else 0
    waiting: Burst | None = None
    while left or waiting:
        room = min(decoder.config.block_size - session.lengths[row] for row in active)
        if left and not room and waiting is None:
            _reread_full(decoder, session, rows, active)
            continue
        steps = min(BURST, left, room)
        left -= steps
        uniform = rows.sampler.uniform(steps) if steps and rows.sampler.config.temperature else None
        ahead = session.launch(steps, uniform) if steps else None
        for tokens, best in waiting.read() if waiting else ():
            check_finite([best[row] for row in active], [rows.contexts[row] for row in active])
            yield from rows.append(active, [tokens[row] for row in active])
            active = rows.continuing(active)
            if not active:
                return
        waiting = ahead


def _choose_on_host(
    decoder: Decoder, session: GraphSession, rows: Rows, active: list[int]
) -> Iterator[tuple[int, int]]:
    """Continue the rows `active`; the graph ends with the logits, and the host chooses tokens."""
    while active:
        _reread_full(decoder, session, rows, active)
        logits = session.logits_after([context[-1] for context in rows.contexts])
        yield from rows.choose(logits[active], active)
        active = rows.continuing(active)


def _reread_full(decoder: Decoder, session: GraphSession, rows: Rows, active: Sequence[int]) -> None:
    """Replace each of the rows `active` that fills the window by the newer half of its tokens, except the last."""
    for row in active:
        if session.lengths[row] == decoder.config.block_size:
            session.replace(row, cast(KVCache, newer_half(decoder, rows.contexts[row])))
