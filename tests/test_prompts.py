"""The template: Alpaca's words, whatever is put into them, there and back as a plain dict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.errors import DataError
from gpt2cli.prompts import ALPACA, PromptTemplate

PIECES = ["a", " ", "\n", "\n\n### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:\n", "{input}"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


def test_the_wording() -> None:
    assert ALPACA.prompt("Add.", "1 and 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n"
        "### Response:\n"
    )
    alone = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:\n"
    )
    assert ALPACA.prompt("Add.") == ALPACA.prompt("Add.", " \n") == alone


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_what_is_put_in_comes_out_as_it_is(instruction: str, given_input: str) -> None:
    template = PromptTemplate("a{instruction}b{input}c{other}{}", "x{instruction}y")
    assert template.prompt(instruction, given_input) == f"a{instruction}b{given_input}c{{other}}{{}}"
    assert template.prompt(instruction) == f"x{instruction}y"


def test_braces_mean_nothing_in_an_instruction() -> None:
    template = PromptTemplate("{instruction}|{input}", "{instruction}")
    assert template.prompt("{input}", "{instruction} {0}") == "{input}|{instruction} {0}"


def test_there_and_back() -> None:
    assert PromptTemplate.from_dict(ALPACA.to_dict()) == ALPACA
    assert set(map(type, ALPACA.to_dict().values())) == {str}


@pytest.mark.parametrize("stored", [None, "text", {}, {"with_input": "a"}, {"with_input": "a", "without_input": 1}])
def test_what_is_no_template(stored: object) -> None:
    with pytest.raises(DataError, match="prompt template"):
        PromptTemplate.from_dict(stored)


def test_headings_are_where_an_answer_has_ended() -> None:
    assert ALPACA.headings == ("### Instruction:", "### Input:", "### Response:")
    # what begins a line only by chance is none elsewhere in it
    assert PromptTemplate("Q: {instruction} {input}\nA: ", "Q: {instruction}\nA: ").headings == ("\nQ:", "\nA:")
    assert PromptTemplate("{instruction}{input}", "{instruction}\n").headings == ()


@given(TEXTS, TEXTS)
def test_a_prompt_is_divided_into_parts_that_make_it_again(instruction, input):
    prompt = ALPACA.prompt(instruction, input)
    found = ALPACA.split(prompt)
    assert found is not None and ALPACA.prompt(*found) == prompt
    followed = ALPACA.split(prompt + "An answer.")
    assert followed is not None and (prompt + "An answer.").startswith(ALPACA.prompt(*followed))


def test_other_texts_are_no_prompts():
    assert ALPACA.split("Once upon a time") is None
    assert PromptTemplate("{instruction} {instruction} {input}", "{instruction}!").split("a a b") == ("a", "b")
