"""The state of a request, and of a text in a slot."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpt2cli.serving.prompt_reading import Prompt, Reading
from gpt2cli.serving.running_text import RunningText
from gpt2cli.serving.text_request import TextEvent, TextRequest

Deliver = Callable[[TextEvent], None]
"""Gets the events of a request, in the thread of the engine. It must return at once."""


class Job:
    """A request. Its texts get slots one after the other; texts with equal prompts share a Prompt.

    waiting       the texts that have had no slot, with their numbers
    has_started   whether a text has had a slot
    is_cancelled  whether the client has left; any thread may set it
    """

    def __init__(self, texts: Sequence[TextRequest], deliver: Deliver) -> None:
        self._deliver = deliver
        self.waiting = deque(enumerate(texts))
        self.has_started = self.is_cancelled = False
        self._prompts = dict[object, Prompt]()
        for text in texts:
            key = text.ids, text.prompt_logprobs
            self._prompts.setdefault(key, Prompt(*key)).texts_left += 1

    def deliver(self, event: TextEvent) -> None:
        """Pass an event on, unless the client has left."""
        if not self.is_cancelled:
            self._deliver(event)

    def prompt(self, text: TextRequest) -> Prompt:
        return self._prompts[text.ids, text.prompt_logprobs]

    def has_prompt(self, prompt: Prompt | None) -> bool:
        return prompt in self._prompts.values()


@dataclass(eq=False)
class Seat:
    """A text in a slot.

    reading  what the text waits for: texts with the same prompt wait for one reading. None: the text is generated.
    """

    slot: int
    job: Job
    prompt: Prompt
    text: RunningText
    reading: Reading | None = field(default=None, init=False)

    def turns_left(self, piece_tokens: int) -> int:
        """The most turns until the text ends, if no other prompt is read. In any thread."""
        reading = self.reading
        pieces = 0 if reading is None else -(-reading.left // piece_tokens)
        return pieces + self.text.most_left
