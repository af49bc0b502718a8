"""Guessing what comes next from the text so far: where its last tokens have stood before, it may go on as it did then.

"Prompt lookup decoding", Saxena 2023. GPT-2 repeats itself a good deal, and answers repeat what they were asked.
"""

from collections.abc import Sequence

NGRAM = 3
"""So many last tokens must have stood together before."""
LONGEST = 15
"""Tokens of a draft at the most."""
COST = 0.14
"""What one more token in a step costs, beside the step itself: on a CPU, eight take twice as long as one."""
RATE = 0.12
"""How fast the expectation follows what happened; and how fast hope comes back where nothing is tried."""


class PromptLookup:
    """Drafts for one text, as long as pays: from `learn`, it knows how often a drafted token turned out right."""

    def __init__(self) -> None:
        self.acceptance = 0.5
        self._seen: dict[tuple[int, ...], int] = {}  # where the text went on after these tokens, the last time
        self._read = NGRAM  # how many tokens of the text are in there

    def draft(self, context: Sequence[int], room: int) -> list[int]:
        """At most `room` tokens that may follow the text; none if nothing is known, or if it would not pay."""
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
        followed = context[start : start + length]  # where the text ends sooner, it goes round
        return [followed[i % len(followed)] for i in range(length)]

    def learn(self, accepted: int, drafted: int) -> None:
        """Take in that the first `accepted` of `drafted` tokens were right."""
        for right in [True] * accepted + [False] * (accepted < drafted):
            self.acceptance += RATE * (right - self.acceptance)

    def _best_length(self) -> int:
        """The length with the most expected tokens for a step's cost."""
        best, best_gain, expected = 0, 1.0, 1.0
        for length in range(1, LONGEST + 1):
            expected += self.acceptance**length
            gain = expected / (1 + COST * length)
            if gain > best_gain:
                best, best_gain = length, gain
        return best
