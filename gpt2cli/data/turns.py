"""The tokens of records, turn by turn. A record is one turn; a conversation has one for each of its exchanges.

They are those of `exchanges.prompt_ids`: each exchange is laid out as if it was the only one.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from gpt2cli.data.encoding import LONGEST_TOKEN, encode_many
from gpt2cli.data.records import Record
from gpt2cli.prompts import PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID


class Turn(NamedTuple):
    """The tokens of an exchange: its prompt, and its answer with the end of text."""

    prompt: list[int]
    answer: list[int]


def template_for(record: Record, template: PromptTemplate) -> PromptTemplate:
    """The template for the prompts of a record: with its system text, if it has one and the template a place for it."""
    return template.with_system(record.system) if record.system.strip() and template.has_place_for_system else template


def encode_turns(records: Sequence[Record], template: PromptTemplate, max_length: int) -> list[list[Turn]]:
    """The turns of each record, without first ones that cannot fit into `max_length` tokens.

    Prompts and answers are encoded separately, as they are when a model answers. A text that cannot fit is cut to one
    that still does not fit. So the texts of a record are bounded, although each prompt repeats its system text.
    """
    most = max_length * LONGEST_TOKEN + 1  # there may be 100 million further characters
    texts, counts = list[str](), list[int]()
    for record in records:
        own, parts, size = template_for(record, template), list[str](), 0
        for each in reversed(record.exchanges):
            if size < most:
                parts += [each.output[:most], own.prompt(each.instruction, each.input)[:most]]
                size += len(parts[-1]) + len(parts[-2])
        texts += reversed(parts)
        counts.append(len(parts) // 2)
    encoded = iter(encode_many(texts))
    return [[Turn(next(encoded), [*next(encoded), END_OF_TEXT_ID]) for _ in range(count)] for count in counts]


def last_turns(turns: Sequence[Turn], max_length: int) -> list[Turn]:
    """The last turns that fit into `max_length` tokens as a whole, at least the last one.

    Its answer is cut if it alone is too long. Returns no turns if its prompt leaves no room for an answer.
    """
    *_, (prompt, answer) = turns
    room = max_length - len(prompt)
    if room < 1 or max_length < 2:  # the first token of a sequence is no target
        return []
    lengths = accumulate(len(turn.prompt) + len(turn.answer) for turn in reversed(turns))
    kept = max(1, sum(length <= max_length for length in lengths))
    return [*turns[-kept:-1], Turn(prompt, answer[:room])]


def joined(turns: Sequence[Turn], learns_prompts: bool = False) -> tuple[list[int], bytearray]:
    """The tokens of at least one turn, one after the other, and for each 1 if it is a target, else 0.

    The answers are targets, and the prompts only if they are learned, too. The first token is none, as no token
    precedes it.
    """
    tokens = [token for turn in turns for part in turn for token in part]
    is_target = bytearray()
    for prompt, answer in turns:
        is_target += bytes([learns_prompts]) * len(prompt) + b"\1" * len(answer)
    is_target[0] = False
    return tokens, is_target
