"""Records in a prompt template, as the tokens that are scored. They are those of training."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from gpt2cli.data.dataset import TokenDataset, from_masked
from gpt2cli.data.records import Record
from gpt2cli.data.turns import Turn, encode_turns, joined, last_turns
from gpt2cli.prompts import PromptTemplate


def lay_out(
    records: Sequence[Record], answers: Sequence[list[int]], template: PromptTemplate, max_length: int
) -> list[list[Turn]]:
    """The `last_turns` of each record. `answers` are the tokens of the last answers, in place of the outputs."""
    turns = encode_turns([replace(record, output="") for record in records], template, max_length)
    return [
        last_turns([*earlier, Turn(last.prompt, answer)], max_length)
        for (*earlier, last), answer in zip(turns, answers, strict=True)
    ]


def sequences(laid_out: Sequence[Sequence[Turn]]) -> TokenDataset:
    """A sequence for each of these lists of turns, at least one, in which the answers are the targets."""
    ids, masks = zip(*map(joined, laid_out), strict=True)
    return from_masked(
        [torch.tensor(each).to(torch.uint16) for each in ids],
        [torch.frombuffer(mask, dtype=torch.bool) for mask in masks],
    )
