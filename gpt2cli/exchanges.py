"""Exchanges, each an instruction with its answer, and the tokens of a conversation.

A conversation is its exchanges one after the other. Each is laid out as if it was the only one: prompt, answer, end of
text. So a model reads in a chat the same tokens as in its training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2cli.prompts import PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode


@dataclass(frozen=True, slots=True)
class Exchange:
    """An instruction and its answer, with the field names of Alpaca. `output` is empty before the answer.

    In a conversation without a template, `instruction` is the text that was typed, and `output` its exact continuation.
    """

    instruction: str
    input: str = ""
    output: str = ""


def prompt_ids(template: PromptTemplate, earlier: Sequence[Exchange], asked: Exchange) -> list[int]:
    """The tokens before the answer to `asked`: those of the `earlier` exchanges with their answers, then its prompt.

    `<|endoftext|>` in a text is plain text. Raises DataError for a text that is not valid Unicode.
    """
    before = [token for exchange in earlier for token in exchange_ids(template, exchange)]
    return before + encode(template.prompt(asked.instruction, asked.input), allow_special=False)


def exchange_ids(template: PromptTemplate, exchange: Exchange) -> list[int]:
    """The tokens of an exchange: its prompt, its answer, and the end of text.

    Prompt and answer are encoded separately, as in training. Raises DataError for a text that is not valid Unicode.
    """
    answer = encode(exchange.output, allow_special=False)
    return [*prompt_ids(template, (), exchange), *answer, END_OF_TEXT_ID]
