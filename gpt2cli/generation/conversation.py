"""The prompt for a conversation: earlier exchanges and a new instruction, as far as they fit into the window."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2cli import tokenizer
from gpt2cli.prompts import PromptTemplate


@dataclass(frozen=True)
class Exchange:
    """An instruction and its answer, with the field names of Alpaca. `output` is empty before the answer."""

    instruction: str
    input: str = ""
    output: str = ""


def compose(
    template: PromptTemplate, earlier: Sequence[Exchange], asked: Exchange, block_size: int, max_new_tokens: int
) -> tuple[str, int]:
    """The prompt for an answer to `asked`, and the number of `earlier` exchanges in it.

    These are the newest ones that leave `max_new_tokens` of the window for the answer, or half of the window if that
    is less. The new instruction is always complete. `<|endoftext|>` is plain text.
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
