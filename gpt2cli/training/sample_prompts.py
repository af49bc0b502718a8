"""The prompts that a model answers during its training, and what the data says after each."""

from dataclasses import dataclass

from gpt2cli import tokenizer
from gpt2cli.config import SamplingConfig
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.splits import spread
from gpt2cli.generation.text import complete
from gpt2cli.model.gpt import GPT
from gpt2cli.prompts import PromptTemplate
from gpt2cli.training.events import Answer

SAMPLING = SamplingConfig(max_new_tokens=60, temperature=0)
"""As `gpt2 chat --temp 0` answers, but with fewer tokens."""
COUNT = 3
"""The number of prompts from the data."""
BEGINNING = 20
"""The tokens of a prompt from plain text."""


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt: the text to show, the text that the model reads, and the answer in the data, if it is known."""

    shown: str
    read: str
    expected: str | None = None


def given_prompts(texts: tuple[str, ...], template: PromptTemplate | None) -> list[SamplePrompt]:
    """The prompts that the user gave: instructions for the template, or without one beginnings of plain text."""
    return [SamplePrompt(text, template.prompt(text) if template else text) for text in texts]


def prompts_from(data: TokenDataset, template: PromptTemplate | None) -> list[SamplePrompt]:
    """The prompts of a few records that are spread evenly over `data`; without a template, beginnings of blocks.

    The text to show is the instruction and the input, without the rest of the template.
    """
    found = []
    for i in spread(COUNT, len(data)):
        ids = data[i][0].tolist()
        found.append(_of_record(ids, int(data.first_targets[i]), template) if template else _of_text(ids))
    return [prompt for prompt in found if prompt]


def answer(model: GPT, prompts: list[SamplePrompt]) -> list[Answer]:
    """The model's answers to all prompts, generated in one batch."""
    ids = [tokenizer.encode(prompt.read, allow_special=False) for prompt in prompts]
    samples = complete(model, ids, SAMPLING)
    return [Answer(prompt.shown, sample.text, prompt.expected) for prompt, sample in zip(prompts, samples, strict=True)]


def _of_record(ids: list[int], first_target: int, template: PromptTemplate) -> SamplePrompt | None:
    """The prompt of a record's sequence. `first_target` is 1 if all its tokens count in the loss."""
    text = tokenizer.decode([token for token in ids if token != tokenizer.END_OF_TEXT_ID])
    prompt = tokenizer.decode(ids[:first_target]) if first_target > 1 else text
    parts = template.parts(prompt)
    if parts is None:
        return SamplePrompt(prompt, prompt, text[len(prompt) :]) if first_target > 1 else None
    instruction, input, response = parts
    read = prompt[: len(prompt) - len(response)]
    return SamplePrompt("\n".join(filter(None, (instruction, input))), read, text[len(read) :])


def _of_text(block: list[int]) -> SamplePrompt | None:
    """The first words of a block of plain text, and the words after them; None if it is too short."""
    ids = max(_split(block), key=len)
    prompt_length = min(BEGINNING, len(ids) // 2)
    start = next((i for i in range(prompt_length) if _begins_a_word(tokenizer.decode([ids[i]]))), 0)
    middle = start + prompt_length
    read, expected = (
        tokenizer.decode(part).strip("\ufffd")  # half a character
        for part in (ids[start:middle], ids[middle : middle + SAMPLING.max_new_tokens])
    )
    return SamplePrompt(read.strip(), read, expected) if read.strip() else None


def _begins_a_word(token: str) -> bool:
    """Whether a token seems to begin a word. A block may begin within a word."""
    return token[:1].isspace() or token[:1].isupper()


def _split(ids: list[int]) -> list[list[int]]:
    """The parts between the tokens that end a text."""
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == tokenizer.END_OF_TEXT_ID:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
