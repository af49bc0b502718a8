"""The KV memory of the texts that are generated at a time: a slot is a row of one cache, with room for the window."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gpt2cli.inference.decoder import Decoder

CPU_PIECE, GPU_PIECE = 32, 512
"""Tokens of a long prompt that are read between two decoding steps. In larger pieces, it takes less time; in smaller
ones, the other texts wait less. A GPU needs more tokens to be busy."""


class Slots(Protocol):
    """Slots of a decoder. All calls come from one thread.

    piece_tokens  how many tokens of a long prompt `read` should get at a time; up to twice as many if they are the last
    nbytes        the size of all keys and values
    """

    piece_tokens: int
    nbytes: int

    def length(self, slot: int) -> int:
        """The number of tokens in a slot."""
        ...

    def read(self, slot: int, ids: Sequence[int], whole: int) -> Any:
        """Add tokens to a slot, a piece of a prompt of `whole` tokens. Returns their final hidden states (T, C)."""
        ...

    def step(self, slots: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float32]:
        """Add one token to each of some slots. Returns the logits (B, V) after them, in main memory."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Replace a slot's tokens by the first ones of another slot, which may be the same one."""
        ...

    def clear(self, slot: int) -> None:
        """Remove a slot's tokens, also those that were not finite."""
        ...


def make_slots(decoder: Decoder, count: int) -> Slots:
    """Reserve the memory for `count` slots."""
    return CacheSlots(decoder, count) if decoder.sessions is None else GraphSlots(decoder, count)


class CacheSlots:
    """Implements `Slots` by the rows of a cache. A pass computes only the rows that it is asked for."""

    def __init__(self, decoder: Decoder, count: int) -> None:
        self._decoder, self._cache = decoder, decoder.new_cache(count, decoder.config.block_size)
        self.piece_tokens = CPU_PIECE if decoder.device == "cpu" else GPU_PIECE
        self.nbytes = self._cache.nbytes

    def length(self, slot: int) -> int:
        return self._cache.lengths[slot]

    def read(self, slot: int, ids: Sequence[int], whole: int) -> Any:
        return self._decoder.hidden(np.array([ids], np.int64), self._cache.view([slot]), whole)[0]

    def step(self, slots: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float32]:
        hidden = self._decoder.hidden(np.array(tokens, np.int64)[:, None], self._cache.view(slots))
        return self._decoder.to_host(self._decoder.head(hidden.reshape(len(slots), -1)))

    def copy(self, source: int, target: int, length: int) -> None:
        if source != target:
            self._cache.copy_row(target, self._cache.view([source]))
        self._cache.lengths[target] = length

    def clear(self, slot: int) -> None:
        self._cache.clear(slot)


class GraphSlots:
    """Implements `Slots` by a session of CUDA graphs. A step computes all rows, also those that are not used.

    Graphs do not read prompts: a second cache of one row does, so that a prompt must be read in one piece. In a step, a
    row that is not used gets a token after its last one, which the next token overwrites. In a full row, it overwrites
    the last one: no step continues a full row.
    """

    def __init__(self, decoder: Decoder, count: int) -> None:
        from gpt2cli.model.cache import KVCache  # imports torch

        assert decoder.sessions is not None
        window = decoder.config.block_size
        self._decoder, self._count = decoder, count
        self._kept = ExitStack()  # for as long as the slots are used
        self._session = self._kept.enter_context(decoder.sessions.session(count, window, None))
        self._prompt = cast(KVCache, decoder.new_cache(1, window))
        self.piece_tokens = window
        self.nbytes = self._session.state.keys.nbytes + self._session.state.values.nbytes + self._prompt.nbytes

    def length(self, slot: int) -> int:
        return self._session.lengths[slot]

    def read(self, slot: int, ids: Sequence[int], whole: int) -> Any:
        self._prompt.clear(0)
        hidden = self._decoder.hidden(np.array([ids], np.int64), self._prompt, whole)[0]
        self._session.replace(slot, self._prompt)
        return hidden

    def step(self, slots: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float32]:
        row_tokens, lengths = [0] * self._count, list(self._session.lengths)
        for slot, token in zip(slots, tokens, strict=True):
            row_tokens[slot] = token
            lengths[slot] += 1
        self._session.set_lengths(self._session.lengths)
        logits = self._decoder.to_host(self._session.logits_after(row_tokens))[list(slots)]
        self._session.lengths = lengths  # the other rows have got a token, too: forget it
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        if source != target:
            self._session.copy_row(source, target)
        self._session.lengths[target] = length

    def clear(self, slot: int) -> None:
        self._session.lengths[slot] = 0  # `read` and `copy` replace all of a row
