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
    """A prompt: the text to show, the tokens that the model reads, and the answer in the data, if it is known."""

    shown: str
    ids: list[int]
    expected: str | None = None


def given_prompts(texts: tuple[str, ...], template: PromptTemplate | None) -> list[SamplePrompt]:
    """The prompts that the user gave: instructions for the template, or without one beginnings of plain text.

    Raises DataError for a text that is not valid Unicode.
    """
    read = [template.prompt(text) if template else text for text in texts]
    return [SamplePrompt(*pair) for pair in zip(texts, (tokenizer.encode(text, False) for text in read), strict=True)]


def prompts_from(data: TokenDataset, template: PromptTemplate | None) -> list[SamplePrompt]:
    """The prompts of a few sequences that are spread evenly over `data`; without a template, beginnings of blocks.

    The prompt of a conversation is its last one, after the earlier exchanges. The text to show is the instruction and
    the input, without the rest of the template.
    """
    found = []
    for i in spread(COUNT, len(data)):
        ids, is_target = (tensor.tolist() for tensor in data[i])
        found.append(_last_of(ids, is_target, template) if template else _of_text(ids))
    return [prompt for prompt in found if prompt]


def answer(model: GPT, prompts: list[SamplePrompt]) -> list[Answer]:
    """The model's answers to all prompts, generated in one batch."""
    samples = complete(model, [prompt.ids for prompt in prompts], SAMPLING)
    return [Answer(prompt.shown, sample.text, prompt.expected) for prompt, sample in zip(prompts, samples, strict=True)]


def _last_of(ids: list[int], is_target: list[bool], template: PromptTemplate) -> SamplePrompt | None:
    """The last prompt of a sequence. None if nothing tells where it ends: neither the targets nor the template."""
    start = next((i for i in range(len(ids) - 1, 0, -1) if ids[i - 1] == tokenizer.END_OF_TEXT_ID), 0)
    if not any(is_target[start:]):
        return None
    end = start + is_target[start:].index(True)
    is_learned = end == max(1, start)  # the prompt too
    if not is_learned:
        prompt, expected = (tokenizer.decode(_without_end(part)) for part in (ids[start:end], ids[end:]))
        parts = _parts(template, prompt)
        return SamplePrompt(_shown(*parts[:2]) if parts else prompt, ids[:end], expected)
    text = tokenizer.decode(_without_end(ids[start:]))
    if (parts := _parts(template, text)) is None:
        return None
    prompt = text.removesuffix(parts[2])
    return SamplePrompt(_shown(*parts[:2]), ids[:start] + tokenizer.encode_plain(prompt), parts[2])


def _parts(template: PromptTemplate, text: str) -> tuple[str, str, str] | None:
    """As `template.parts`, also of a text that has a system text in place of the template's."""
    found = template.parts(text)
    if found is None and template.has_place_for_system:
        return template.with_system(text.partition(template.headings[0])[0]).parts(text)
    return found


def _shown(instruction: str, input: str) -> str:
    return "\n".join(filter(None, (instruction, input)))


def _without_end(ids: list[int]) -> list[int]:
    return ids[:-1] if ids[-1:] == [tokenizer.END_OF_TEXT_ID] else ids


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
    return SamplePrompt(read.strip(), tokenizer.encode_plain(read), expected) if read.strip() else None


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
