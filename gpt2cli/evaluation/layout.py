"""Records in a prompt template, as tokens: turns that are scored, which are laid out as in training."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from gpt2cli.data.dataset import TokenDataset, from_masked
from gpt2cli.data.encoding import LONGEST_TOKEN, encode_many
from gpt2cli.data.records import Record
from gpt2cli.prompts import PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID


class Turn(NamedTuple):
    """The tokens of an exchange: its prompt, and its answer with the end of text."""

    prompt: list[int]
    answer: list[int]


def template_for(record: Record, template: PromptTemplate) -> PromptTemplate:
    """The template with the record's system text, if it has one and the template a place for it."""
    return template.with_system(record.system) if record.system and template.has_place_for_system else template


def lay_out(
    records: Sequence[Record], answers: Sequence[list[int]], template: PromptTemplate, max_length: int
) -> list[list[Turn]]:
    """The turns of each record: its last ones that fit into `max_length` tokens as a whole, at least the last.

    `answers` are the tokens of each record's last answer. It is cut if the last turn alone is too long. A record has no
    turns if its last prompt leaves no room for an answer.
    """
    most = max_length * LONGEST_TOKEN + 1  # further characters cannot fit, and there may be 100 million of them
    texts: list[str] = []
    for record in records:
        own = template_for(record, template)
        texts += [own.prompt(exchange.instruction, exchange.input)[:most] for exchange in record.exchanges]
        texts += [exchange.output[:most] for exchange in record.earlier]
    encoded = iter(encode_many(texts))
    found = []
    for record, answer in zip(records, answers, strict=True):
        prompts = [next(encoded) for _ in record.exchanges]
        said = [[*next(encoded), END_OF_TEXT_ID] for _ in record.earlier]
        found.append(_fitting([*map(Turn, prompts, [*said, answer])], max_length))
    return found


def _fitting(turns: list[Turn], max_length: int) -> list[Turn]:
    last = turns[-1]
    if len(last.prompt) >= max_length:
        return []
    room = max_length - len(last.prompt) - len(last.answer)
    kept = [Turn(last.prompt, last.answer[: max_length - len(last.prompt)])]
    for turn in reversed(turns[:-1]):
        room -= len(turn.prompt) + len(turn.answer)
        if room < 0:
            break
        kept.append(turn)
    return kept[::-1]


def sequences(laid_out: Sequence[Sequence[Turn]]) -> TokenDataset:
    """A sequence for each list of turns, in which the answers are the targets."""
    parts = [[part for turn in turns for part in turn] for turns in laid_out]
    ids = [torch.tensor([token for part in each for token in part]).to(torch.uint16) for each in parts]
    masks = [torch.tensor([bool(i % 2) for i, part in enumerate(each) for _ in part]) for each in parts]
    for mask in masks:
        mask[0] = False  # no token precedes it
    return from_masked(ids, masks)
