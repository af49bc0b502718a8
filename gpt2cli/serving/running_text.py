"""One text while it is generated: it chooses its tokens and says what is new."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpt2cli.generation.decode import random_seed
from gpt2cli.generation.logprobs import token_logprobs
from gpt2cli.generation.sampling import Sampler
from gpt2cli.generation.text import Sample
from gpt2cli.inference.candidates import candidates
from gpt2cli.serving.logit_changes import LogitChanges
from gpt2cli.serving.text_request import NewText, TextEnd, TextEvent, TextRequest


class RunningText:
    """Text `index` of a request. It depends on nothing but its request and the model's logits.

    context  the tokens of the prompt and the new ones
    is_over  whether the text is complete
    """

    def __init__(self, index: int, request: TextRequest) -> None:
        self.index, self.request = index, request
        self.context = list(request.ids)
        self.is_over = False
        sampling = request.sampling
        seed = random_seed() if sampling.seed is None else sampling.seed
        self._sample = Sample(seed, sampling.stop)
        self._sampler = Sampler(sampling, [seed], candidates)
        self._changes = LogitChanges(request.frequency_penalty, request.presence_penalty, request.logit_bias)
        self._sent = 0  # the number of log-probabilities that events had

    @property
    def most_left(self) -> int:
        """The number of tokens until the text has its largest length."""
        return self.request.sampling.max_new_tokens - self._new_tokens

    @property
    def _new_tokens(self) -> int:
        return len(self.context) - len(self.request.ids)

    def choose(self, logits: NDArray[np.float32]) -> Iterator[TextEvent]:
        """Choose the next token, given the logits (V,) after the context. Yields what is new.

        Raises DivergedError if the largest logit is not finite.
        """
        [token] = self._sampler.choose(self._changes.changed(logits)[None], [self.context], [0])
        self.context.append(token)
        self._changes.count(token)
        if self.request.logprobs is not None:
            self._sample.logprobs += token_logprobs(logits[None], [token], self.request.logprobs)
        text = self._sample.push(token)
        if self._sample.finish_reason is None and self.most_left:
            yield from self._new(text)
        else:
            yield from self.finish(text)

    def finish(self, text: str = "") -> Iterator[TextEvent]:
        """End the text. Yields the rest of it, after the new `text`."""
        self.is_over = True
        end_of_text = tuple(self._sample.logprobs[-1:]) if self._sample.finish_reason == "eos" else ()
        yield from self._new(text + self._sample.finish())
        if end_of_text:  # a token without characters
            yield NewText(self.index, "", end_of_text, self._new_tokens)
        reason = self._sample.finish_reason
        yield TextEnd(self.index, "length" if reason == "length" else "stop", self._new_tokens)

    def _new(self, text: str) -> Iterator[NewText]:
        """Yields new text and the log-probabilities of the tokens that it completes, unless there is neither."""
        logprobs = tuple(self._sample.logprobs[self._sent : self._sample.settled])
        self._sent += len(logprobs)
        if text or logprobs:
            yield NewText(self.index, text, logprobs, self._new_tokens)
