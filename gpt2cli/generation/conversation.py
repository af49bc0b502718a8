"""A conversation as a model reads it: earlier exchanges and a new instruction, in one prompt that fits the window."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2cli import tokenizer
from gpt2cli.prompts import PromptTemplate


@dataclass(frozen=True)
class Exchange:
    """An instruction and its answer, under the names of Alpaca's records; `output` is empty until it is answered."""

    instruction: str
    input: str = ""
    output: str = ""


def compose(
    template: PromptTemplate, earlier: Sequence[Exchange], asked: Exchange, block_size: int, max_new_tokens: int
) -> tuple[str, int]:
    """The prompt for an answer to `asked`, and how many of the `earlier` exchanges it takes along.

    These are the newest ones that leave `max_new_tokens` of the window for the answer, or half of the window if that
    is less. The new instruction is there whole, however long. `<|endoftext|>` counts as the plain text that it is to a
    chat.
    """
    room = block_size - min(max_new_tokens, block_size // 2)
    prompt, taken = template.prompt(asked.instruction, asked.input), 0
    for exchange in reversed(earlier):
        before = template.prompt(exchange.instruction, exchange.input) + exchange.output
        longer = f"{before}\n\n{prompt}"
        if len(tokenizer.encode(longer, allow_special=False)) > room:
            break
        prompt, taken = longer, taken + 1
    return prompt, taken
