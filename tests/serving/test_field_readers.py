"""Readers of fields: the types that they take, and the errors for all others."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.bounds import Bounds
from gpt2cli.serving.field_readers import (
    check_names,
    flag,
    number,
    read_field,
    refuse_unsupported,
    some_list,
    some_object,
    text,
    text_or_texts,
    token_ids,
    whole_number,
    within,
)
from gpt2cli.serving.refused_error import RefusedError
from tests.serving.served_models import anything, check_answer

READERS: list[Callable[[Any, str], Any]] = [
    flag,
    number,
    some_list,
    some_object,
    text,
    text_or_texts,
    token_ids,
    whole_number,
]


@pytest.mark.parametrize(
    ("reader", "value", "found"),
    [
        (flag, True, True),
        (flag, False, False),
        (whole_number, 3, 3),
        (whole_number, -(10**100), -(10**100)),
        (number, 1, 1.0),
        (number, -0.5, -0.5),
        (text, "a🌍", "a🌍"),
        (text, "", ""),
        (text_or_texts, "a", ("a",)),
        (text_or_texts, ["a", ""], ("a", "")),
        (text_or_texts, [], ()),
        (token_ids, [0, 50256], (0, 50256)),
        (some_list, [None], [None]),
        (some_object, {"a": 1}, {"a": 1}),
    ],
)
def test_a_value_of_the_type_is_taken(reader: Callable[[Any, str], Any], value: Any, found: Any) -> None:
    assert reader(value, "field") == found
    assert type(reader(value, "field")) is type(found)


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        (flag, 1, "field must be true or false, not 1"),
        (flag, "true", "field must be true or false, not 'true'"),
        (whole_number, True, "field must be a whole number, not true"),
        (whole_number, 1.0, "field must be a whole number, not 1.0"),
        (whole_number, None, "field must be a whole number, not null"),
        (number, False, "field must be a number, not false"),
        (number, "1", "field must be a number, not '1'"),
        (number, math.nan, "field must be a finite number, not nan"),
        (number, -math.inf, "field must be a finite number, not -inf"),
        (number, 10**400, "field must be a finite number, not a number of more than 40 digits"),
        (text, ["a"], "field must be a text, not a list"),
        (text, "a\ud800", "field contains half a surrogate pair, which is not a character"),
        (text_or_texts, {}, "field must be a text or a list of texts, not an object"),
        (text_or_texts, ["a", 1], "field[1] must be a text, not 1"),
        (token_ids, "ab", "field must be a list, not 'ab'"),
        (token_ids, [0, 50257], "field[1] must be a token id from 0 to 50256, not 50257"),
        (token_ids, [True], "field[0] must be a token id from 0 to 50256, not true"),
        (some_list, {}, "field must be a list, not an object"),
        (some_object, [], "field must be an object, not a list"),
        (some_object, "x" * 1000, f"field must be an object, not '{'x' * 40}...'"),
    ],
)
def test_another_value_is_refused(reader: Callable[[Any, str], Any], value: Any, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        reader(value, "field")
    assert (caught.value.status, caught.value.message) == (400, message)
    assert caught.value.param == message.split()[0]


@given(st.sampled_from(READERS), anything)
def test_a_reader_takes_or_refuses_any_value(reader: Callable[[Any, str], Any], value: Any) -> None:
    try:
        reader(value, "field")
    except RefusedError as error:
        check_answer(error, "field")


@given(st.integers(-5, 15))
def test_bounds(value: int) -> None:
    reader = within(Bounds("from 0 to 9", lambda found: 0 <= found <= 9), whole_number)
    if 0 <= value <= 9:
        assert reader(value, "field") == value
    else:
        with pytest.raises(RefusedError, match=f"^field must be from 0 to 9, not {value}$"):
            reader(value, "field")


def test_a_field_that_is_absent_or_null_has_its_default() -> None:
    assert read_field({}, "n", whole_number, 1) == read_field({"n": None}, "n", whole_number, 1) == 1
    assert read_field({"n": 0}, "n", whole_number, 1) == 0


def test_an_unknown_name_is_refused_with_a_guess() -> None:
    known = ("temperature", "stop")
    check_names({"stop": 1}, known, {})
    with pytest.raises(RefusedError, match=r"^temprature is not a known field: did you mean temperature\?$"):
        check_names({"temprature": 1}, known, {})
    with pytest.raises(RefusedError, match=r"^until is not a known field: did you mean stop\?$"):
        check_names({"until": 1}, known, {"until": "stop"})
    with pytest.raises(RefusedError, match=r"^zzz is not a known field: the fields are stop, temperature$"):
        check_names({"zzz": 1}, known, {})


@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_any_unknown_name_can_be_sent_back(name: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_names({name * 50: 1}, ("temperature",), {})
    assert len(json.dumps(caught.value.as_dict(), ensure_ascii=False).encode()) < 4000


@pytest.mark.parametrize("value", [None, False, {"a": []}])
def test_a_neutral_value_of_what_is_not_supported_is_accepted(value: Any) -> None:
    refuse_unsupported({"field": value}, {"field": (False, {"a": []})})


@pytest.mark.parametrize("value", [True, 0, "", {}, {"a": [1]}, {"a": [], "b": 1}])
def test_any_other_value_of_what_is_not_supported_is_refused(value: Any) -> None:
    with pytest.raises(RefusedError, match=r"^field is not supported here: leave it out$") as caught:
        refuse_unsupported({"field": value}, {"field": (False, {"a": []})})
    assert caught.value.param == "field"
