"""Models and questions that the laws of insight are tested on."""

import dataclasses
from collections.abc import Iterator

import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.insight.events import Event
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from gpt2cli.model.gpt import GPT
from gpt2cli.tokenizer import encode
from tests.models import SMALL, small_model

MODELS = ("random", "untied", "tiny")
TEXT = "The fox saw the crow, and the fox said"
OTHER_TEXT = "The owl saw the crow, and the owl said"  # as many tokens
TARGET, FOIL = encode(" fox")[0], encode(" the")[0]


def model(name: str) -> GPT:
    """A small random model, one whose head is not tied, or the bundled one."""
    if name == "tiny":
        return load_plain("tiny", device="cpu")
    return small_model(dataclasses.replace(SMALL, tied=name != "untied"))


def subject(name: str, text: str = TEXT, against: str | None = None, **question: int | None) -> Subject:
    """A question about a model: its prompt as text, a target and a foil as ids."""
    other = None if against is None else tuple(encode(against))
    return Subject(model(name), Question(tuple(encode(text)), against=other, **question))


def double(found: Subject) -> Subject:
    """The same question about the model in fp64."""
    return dataclasses.replace(found, model=found.model.to(torch.float64))


def finding(events: Iterator[Event]):
    """The last event of a part."""
    *_, last = events
    return last
