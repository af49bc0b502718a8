"""Models to read requests for, without weights, and JSON to try on readers."""

import json
from typing import Any

from hypothesis import strategies as st

from gpt2cli.config import GPTConfig
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel


def described_model(template: PromptTemplate | None = ALPACA, window: int = 256, name: str = "tiny") -> ServedModel:
    """A model without weights."""
    return ServedModel(name, 1, GPTConfig(block_size=window), "fp32", "cpu", template, False, "fp_0")


texts = st.text(st.characters(exclude_categories=()), max_size=8)  # halves of surrogate pairs too
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, -(2**63), 50256, 50257])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(texts, each, max_size=4),
    max_leaves=12,
)
"""Any value that a parser of JSON can return."""


def nested(depth: int) -> Any:
    """A list in a list in a list ..."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def check_answer(error: RefusedError, name: str) -> None:
    """The error is about a field or a part of it, and can be sent."""
    assert error.status in (400, 404)
    assert error.param is not None and error.param.startswith(name)
    assert len(json.dumps(error.as_dict(), ensure_ascii=False).encode()) < 2000


HUGE = {
    "nested": nested(100_000),
    "nested in an object": {"a": nested(100_000)},
    "long text": "a" * 10**6,
    "long text that is not Unicode": "\ud800" * 10**6,
    "long list": [0.5] * 10**5,
}
