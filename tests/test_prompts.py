"""The template: Alpaca's words, whatever is put into them, there and back as a plain dict."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.errors import DataError, UsageError
from gpt2cli.prompts import (
    ALPACA,
    LONGEST_FILE,
    SEED,
    PromptTemplate,
    check_place_for_system,
    preamble_of,
    read_template,
)

PLACELESS = PromptTemplate("Q: {instruction} {input}\nA: ", "Q: {instruction}\nA: ")
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


def test_the_wording_with_an_empty_line_between_the_sentences() -> None:
    assert read_template("seed").prompt("Add.", "1 and 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context.\n\nWrite a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n"
        "### Response:\n"
    )
    assert read_template("seed").prompt("Add.") == (
        "Below is an instruction that describes a task.\n\nWrite a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:\n"
    )
    assert read_template("alpaca") == ALPACA


def test_a_template_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"with_input": "Q: {instruction} ({input})\n", "without_input": "Q: {instruction}\n", "name": "mine"}
    (tmp_path / "mine.json").write_text(json.dumps(stored), encoding="utf-8-sig")
    monkeypatch.setenv("HOME", str(tmp_path))
    for choice in (str(tmp_path / "mine.json"), "~/mine.json"):
        assert read_template(choice) == PromptTemplate("Q: {instruction} ({input})\n", "Q: {instruction}\n")


def test_a_template_from_a_file_with_a_system_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(ALPACA.to_dict() | {"system": " You are a {input}.\n"}))
    assert read_template(str(file)) == ALPACA.with_system("You are a {input}.")
    file.write_text(json.dumps(ALPACA.to_dict() | {"system": " "}))
    assert read_template(str(file)) == ALPACA
    for wrong, says in (
        (ALPACA.to_dict() | {"system": 1}, "system is 1"),
        (ALPACA.to_dict() | {"system": "\ud800"}, "system is not valid Unicode"),
        (PLACELESS.to_dict() | {"system": "Hello."}, "system replaces the text before the first heading"),
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=says):
            read_template(str(file))


def stored(without_input: object) -> str:
    return json.dumps({"with_input": "{instruction}{input}", "without_input": without_input})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "bad JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "is a value of type list, not an object"),
        ("NaN", "is nan, not an object"),
        ("{}", "with_input is missing"),
        ('{"with_input": "{instruction}{input}"}', "without_input is missing"),
        (stored(None), "without_input is None"),
        (stored([["a"]]), "without_input is a value of type list"),
        (stored("Answer:"), "without_input does not hold {instruction}"),
        ('{"with_input": "{instruction}", "without_input": "{instruction}"}', "with_input does not hold {input}"),
        (stored("\ud800{instruction}"), "not valid Unicode"),
        (stored("{instruction}" + "x" * LONGEST_FILE), "larger than"),
        (b"\xff", "not valid UTF-8 at byte 0"),
    ],
    ids=range(13),
)
def test_a_file_that_is_no_template_is_bad_data(tmp_path: Path, content: str | bytes, says: str) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_template(str(file))
    assert says in str(caught.value) and str(file) in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("choice", ["another", "nowhere/mine.json", ".", "x" * 5000, "a\x00b", "a\nb"])
def test_a_template_that_is_not_there(choice: str) -> None:
    with pytest.raises(
        UsageError, match=r"there is no template .* give alpaca, seed|cannot be the name of a file"
    ) as error:
        read_template(choice)
    assert len(str(error.value)) < 300


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


def test_a_blank_input_is_none_wherever_it_is_put():
    template = PromptTemplate("Q: {instruction} {input}\nA:", "Q: {instruction} {input}\nA:")
    assert template.prompt("Who is it?", " ") == template.prompt("Who is it?") == "Q: Who is it? \nA:"


def test_a_template_does_not_multiply_what_is_asked(tmp_path):
    hostile = "{instruction}" * 10_000
    with pytest.raises(DataError, match="10,000 fields"):
        PromptTemplate.from_dict({"with_input": hostile, "without_input": hostile})
    (tmp_path / "mine.json").write_text(json.dumps({"with_input": hostile + "{input}", "without_input": hostile}))
    with pytest.raises(DataError, match=r"mine.json is not a template: with_input holds"):
        read_template(str(tmp_path / "mine.json"))


@pytest.mark.parametrize("template", [ALPACA, SEED, PromptTemplate("{input}|{instruction}|{input}>", "{instruction}")])
@pytest.mark.parametrize(("instruction", "input"), [("Who?", ""), ("Add.", "1, 2"), ("a\nb (c) [d] \\1", "{x}\n")])
def test_the_parts_of_a_text_are_those_that_it_was_made_of(template, instruction, input):
    prompt = template.prompt(instruction, input)
    if template.without_input != "{instruction}":
        assert template.parts(prompt + "The answer") == (instruction, input, "The answer")
        assert template.parts("x" + prompt) is None
    elif input:
        assert template.parts(prompt) == (instruction, input, "")


@pytest.mark.parametrize(
    ("text", "preamble"),
    [
        (ALPACA.without_input, ALPACA.without_input.partition("\n\n#")[0]),
        ("Be kind.\nQ: {instruction}", "Be kind."),
        (" Be\n\nkind.\n \n### Asked \t\n{instruction}", " Be\n\nkind."),
        ("Q: {instruction}", ""),
        ("\n\nQ: {instruction}", ""),
        ("### Asked\n{instruction}", ""),
        ("Be kind. {instruction}\nNow:\n{input}", ""),
        ("{instruction}", ""),
        ("\n{instruction}", ""),
        ("Be kind.\nNo field.", ""),
    ],
)
def test_the_preamble_is_what_stands_before_the_first_heading(text: str, preamble: str) -> None:
    assert preamble_of(text) == preamble
    for with_input in (text, ALPACA.with_input):
        template = PromptTemplate(with_input, text)
        assert template.has_place_for_system == bool(preamble)
        found = template.with_system("\nYou are {input}. \\1 ").prompt("{input}")
        assert found == (template.prompt("{input}").replace(preamble, "You are {input}. \\1", 1) if preamble else found)
        assert (found == template.prompt("{input}")) == (not preamble)


def test_a_system_text_is_in_every_prompt_in_place_of_the_preamble() -> None:
    template = ALPACA.with_system("You are a pirate.")
    end = "\n\n### Instruction:\nAdd.\n\n### Response:\n"
    assert template.prompt("Add.") == "You are a pirate." + end
    assert template.prompt("Add.", "1, 2") == (
        "You are a pirate.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n"
    )
    assert template.headings == ALPACA.headings
    assert template.with_system(" \n") == ALPACA


def test_a_template_without_a_preamble_has_no_place_for_a_system_text() -> None:
    assert not PLACELESS.has_place_for_system
    assert PLACELESS.with_system("You are a pirate.").prompt("Add.") == PLACELESS.prompt("Add.")
    for template, says in ((PLACELESS, "has no preamble"), (None, "a text that is continued has no system text")):
        with pytest.raises(UsageError, match=says):
            check_place_for_system(template)
    assert check_place_for_system(SEED) == SEED


@given(st.text().map(str.strip), TEXTS)
def test_a_system_text_comes_back_from_a_checkpoint_and_its_braces_mean_nothing(system: str, asked: str) -> None:
    template = ALPACA.with_system(system)
    assert PromptTemplate.from_dict(template.to_dict()) == template
    assert ("system" in template.to_dict()) == bool(system)
    if system:
        assert template.prompt(asked) == f"{system}\n\n### Instruction:\n{asked}\n\n### Response:\n"


@pytest.mark.parametrize("template", [ALPACA, SEED])
@pytest.mark.parametrize("system", ["You are (a) [b] \\1.", "{instruction}", "Two\n\nparagraphs"])
@pytest.mark.parametrize(("instruction", "input"), [("Who?", ""), ("a\nb {input}", "{x}\n")])
def test_the_parts_of_a_text_with_a_system_text(
    template: PromptTemplate, system: str, instruction: str, input: str
) -> None:
    told = template.with_system(system)
    text = told.prompt(instruction, input) + "The answer"
    assert told.parts(text) == (instruction, input, "The answer")
    assert template.parts(text) is None
