"""What is asked: prompts and tokens as texts."""

import pytest

from gpt2cli.errors import DataError, UsageError
from gpt2cli.insight.question import Question, ask
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode, show


def test_the_prompt_is_what_generate_reads() -> None:
    question, notes = ask("One<|endoftext|> two", target=" Paris")
    assert question == Question((*encode("One"), END_OF_TEXT_ID, *encode(" two")), target=encode(" Paris")[0])
    assert notes == []
    assert ask("")[0].prompt == (END_OF_TEXT_ID,)


def test_with_bos_the_end_of_text_is_before_both_prompts() -> None:
    question, _ = ask("One two", against="Six two", bos=True)
    assert question.prompt == (END_OF_TEXT_ID, *encode("One two"))
    assert question.against == (END_OF_TEXT_ID, *encode("Six two"))
    assert ask("", bos=True)[0].prompt == (END_OF_TEXT_ID,)


def test_of_several_tokens_the_first_counts_and_a_note_says_so() -> None:
    question, [note] = ask("One", target=" New York")
    assert question.target == encode(" New")[0]
    assert note.text == "--target ' New York' has 2 tokens: only the first counts, ' New'"
    _, [note] = ask("The doctor said", foil="she")
    assert note.text == "--foil 'she' continues the prompt's last word: ' she' begins a new one"
    assert ask("The doctor said:", foil="she")[1] == ask("Once upon a time ", foil="she")[1] == []
    question, [note] = ask("One", target="🦉")
    assert "only the first counts" in note.text and show(question.target or 0) in note.text.replace("\\\\", "\\")


def test_what_cannot_be_asked() -> None:
    with pytest.raises(UsageError, match="--foil is empty"):
        ask("One", foil="")
    with pytest.raises(UsageError, match="--against has 1 token and the prompt has 2: they must have the same number"):
        ask("One two", against="One")
    with pytest.raises(UsageError, match="--against is the prompt itself"):
        ask("One two", against="One two")
    with pytest.raises(UsageError, match="the prompt is empty"):
        Question(())
    with pytest.raises(DataError, match="not valid Unicode"):
        ask("One \udc80")


def test_tokens_that_are_no_text_and_ids_that_are_no_token() -> None:
    assert show(END_OF_TEXT_ID) == "<|endoftext|>" and show(50300) == "[50300]"
    assert show(encode("é")[0]) == "é" and show(encode("🦉")[0]).startswith(r"\x")
