"""Drafts of the next tokens: those that followed when the last tokens of the text occurred earlier in it.

"Prompt lookup decoding", Saxena 2023. GPT-2 often repeats itself, and answers repeat words of the question.
"""

from collections.abc import Sequence

NGRAM = 3
"""The number of last tokens that must have occurred together before."""
LONGEST = 15
"""The most tokens in a draft."""
COST = 0.14
"""The cost of one more token in a step, in steps of one token: on a CPU, eight tokens take twice as long as one."""
RATE = 0.12
"""The step size of the running acceptance rate, which also rises by a tenth of this when no draft is tried."""


class PromptLookup:
    """Drafts for one text. Their length depends on how often drafted tokens were accepted: see `learn`."""

    def __init__(self) -> None:
        self.acceptance = 0.5
        self._seen: dict[tuple[int, ...], int] = {}  # n-gram to the index after its last occurrence
        self._read = NGRAM  # n-grams that end before this index are in `_seen`

    def draft(self, context: Sequence[int], room: int) -> list[int]:
        """At most `room` tokens that may follow the text; none if its end is new or a draft is not worth its cost."""
        for end in range(self._read, len(context)):
            self._seen[tuple(context[end - NGRAM : end])] = end
        self._read = max(self._read, len(context))
        start = self._seen.get(tuple(context[-NGRAM:]))
        if start is None:
            return []
        length = self._best_length()
        if length == 0:
            self.acceptance += RATE / 10
        length = min(length, room)
        followed = context[start : start + length]  # repeated below if the text ends sooner
        return [followed[i % len(followed)] for i in range(length)]

    def learn(self, accepted: int, drafted: int) -> None:
        """Update the acceptance rate: the first `accepted` of `drafted` tokens were right."""
        for right in [True] * accepted + [False] * (accepted < drafted):
            self.acceptance += RATE * (right - self.acceptance)

    def _best_length(self) -> int:
        """The length of a draft with the most expected tokens per cost of the step."""
        best, best_gain, expected = 0, 1.0, 1.0
        for length in range(1, LONGEST + 1):
            expected += self.acceptance**length
            gain = expected / (1 + COST * length)
            if gain > best_gain:
                best, best_gain = length, gain
        return best
