"""The state of a request and of a slot."""

from collections import deque
from collections.abc import Callable, Sequence

from gpt2cli.serving.prompt_reading import Prompt, Reading
from gpt2cli.serving.running_text import RunningText
from gpt2cli.serving.text_request import TextEvent, TextRequest


class Job:
    """A request in the batch. Its texts get slots one after the other; texts with equal prompts share a Prompt.

    deliver  gets the events
    waiting  the texts that have had no slot, with their numbers
    running  the number of texts that have a slot
    """

    def __init__(self, texts: Sequence[TextRequest], deliver: Callable[[TextEvent], None]) -> None:
        self.deliver = deliver
        self.waiting = deque(enumerate(texts))
        self.running = 0
        self.has_started = False
        self._prompts = dict[object, Prompt]()
        for text in texts:
            key = text.ids, text.prompt_logprobs
            self._prompts.setdefault(key, Prompt(*key)).texts_left += 1

    def prompt(self, text: TextRequest) -> Prompt:
        return self._prompts[text.ids, text.prompt_logprobs]

    def has_prompt(self, prompt: Prompt | None) -> bool:
        return prompt in self._prompts.values()


class Seat:
    """A slot, and the text in it. A text without `reading` that is not generating waits for its prompt's reader.

    held  the prompt that the slot begins with, for other texts to copy
    """

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.job: Job | None = None
        self.text: RunningText | None = None
        self.reading: Reading | None = None
        self.held: Prompt | None = None
        self.is_generating = False
