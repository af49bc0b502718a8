"""A request for texts, after all its fields have been read."""

from dataclasses import dataclass

from gpt2cli.serving.text_request import TextRequest


@dataclass(frozen=True)
class GenerationRequest:
    """A checked body of /v1/completions or /v1/chat/completions.

    texts          `n` for each prompt, one prompt after the other: text j of prompt i is number i * n + j, as `index`
                   in the answer. Text j has the seed of the request + j, whatever the other prompts are.
    prompts        for each prompt its text, which `echo` puts in front of each of its texts
    n              the number of texts for each prompt
    echo           whether the answer begins with the prompt, and its logprobs with those of the prompt (completions)
    logprobs       the number of likeliest tokens that the answer lists at each place; None: no logprobs
    stream         whether the answer is a stream of chunks
    include_usage  whether the last chunk has the token counts
    """

    texts: tuple[TextRequest, ...]
    prompts: tuple[str, ...]
    n: int = 1
    echo: bool = False
    logprobs: int | None = None
    stream: bool = False
    include_usage: bool = False

    @property
    def prompt_tokens(self) -> int:
        """The tokens of all prompts. A prompt with several texts counts once, as in OpenAI's answers."""
        return sum(len(text.ids) for text in self.texts[:: self.n])
