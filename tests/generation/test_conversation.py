"""Earlier exchanges in a prompt: as many of the newest as fit, and never less than what is asked."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpt2cli
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.exchanges import Exchange
from gpt2cli.generation.conversation import Chat, ask, compose, transcript
from gpt2cli.generation.text import generate
from gpt2cli.model.gpt import GPT
from gpt2cli.model.origin import Origin
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import encode
from tests.conftest import Run
from tests.models import SMALL, small_model

SHORT = PromptTemplate("Q: {instruction} ({input})\nA: ", "Q: {instruction}\nA: ")
texts = st.text("ab \n🌍", min_size=1, max_size=12)
exchanges = st.lists(st.builds(Exchange, texts, st.just("") | texts, texts), max_size=5)


def test_the_wording() -> None:
    earlier = [Exchange("Add 1 and 2.", "", "3"), Exchange("Translate.", "Hund", "dog")]
    prompt, taken = compose(SHORT, earlier, Exchange("Why?"), 1024, 100)
    assert (prompt, taken) == ("Q: Add 1 and 2.\nA: 3\n\nQ: Translate. (Hund)\nA: dog\n\nQ: Why?\nA: ", 2)
    assert compose(ALPACA, [], Exchange("Add.", "1 2"), 1024, 100) == (ALPACA.prompt("Add.", "1 2"), 0)


@given(exchanges, texts, st.integers(1, 200), st.integers(0, 100))
def test_the_newest_that_fit_are_taken_and_no_fewer(
    earlier: list[Exchange], asked: str, block_size: int, max_new_tokens: int
) -> None:
    prompt, taken = compose(SHORT, earlier, Exchange(asked), block_size, max_new_tokens)
    room = block_size - min(max_new_tokens, block_size // 2)
    at_ease, everything = compose(SHORT, earlier[len(earlier) - taken :], Exchange(asked), 10_000, 0)
    assert (prompt, taken) == (at_ease, everything)
    assert prompt.endswith(SHORT.prompt(asked))
    assert taken == 0 or len(encode(prompt)) <= room
    if taken < len(earlier):
        one_more, _ = compose(SHORT, earlier[len(earlier) - taken - 1 :], Exchange(asked), 10_000, 0)
        assert len(encode(one_more)) > room


@given(exchanges, texts)
def test_a_limit_beyond_the_window_leaves_half_of_it_for_the_prompt(earlier: list[Exchange], asked: str) -> None:
    assert compose(SHORT, earlier, Exchange(asked), 60, 10**6) == compose(SHORT, earlier, Exchange(asked), 60, 30)


def test_end_of_text_counts_as_the_plain_text_that_it_is() -> None:
    earlier = [Exchange("Why <|endoftext|>?", "", "<|endoftext|>")]
    prompt, taken = compose(SHORT, earlier, Exchange("And?"), 1000, 0)
    plain, special = len(encode(prompt, allow_special=False)), len(encode(prompt))
    assert taken == 1 and plain > special
    assert compose(SHORT, earlier, Exchange("And?"), plain, 0)[1] == 1
    assert compose(SHORT, earlier, Exchange("And?"), plain - 1, 0)[1] == 0


def test_without_a_template_it_is_one_text_and_what_is_typed_begins_a_line() -> None:
    earlier = [Exchange("Once", "", " upon a time"), Exchange("", "", " there was"), Exchange("An owl", "", " said")]
    text = "Once upon a time there was\nAn owl said\nThe fox"
    assert compose(None, earlier, Exchange("The fox"), 1024, 100) == (text, 3)
    assert compose(None, earlier, Exchange(""), 1024, 100) == (text.removesuffix("\nThe fox"), 3)
    assert transcript([*earlier, Exchange("The fox", "", " slept.")]) == text + " slept."
    assert compose(None, [], Exchange("The fox", "An owl"), 1024, 100) == ("An owl\nThe fox", 0)


def sayer(**facts: object) -> GPT:
    """A small model whose checkpoint said this."""
    model = small_model(replace(SMALL, block_size=128))
    model.origin = Origin(**facts)  # type: ignore[arg-type]
    return model


GREEDY = SamplingConfig(max_new_tokens=8, temperature=0)


@pytest.mark.parametrize(
    ("facts", "prompt"),
    [
        ({}, ALPACA.prompt("Why?")),
        ({"template": SHORT.to_dict()}, "Q: Why?\nA: "),
        ({"is_plain_text": True}, "Why?"),
    ],
    ids=["none", "template", "text"],
)
def test_a_model_is_asked_as_its_checkpoint_says(facts: dict[str, object], prompt: str) -> None:
    model = sayer(**facts)
    assert ask(model, "Why?", GREEDY) == generate(model, prompt, GREEDY).strip() != ""


def test_several_turns_are_the_prompt_of_the_next_and_the_seed_goes_up() -> None:
    model, sampling = sayer(template=SHORT.to_dict()), SamplingConfig(max_new_tokens=8, seed=3)
    chat = Chat(model, sampling, turns=9)
    first = chat.ask("Why?")
    second = chat.ask("And?", "this")
    assert chat.exchanges == [Exchange("Why?", "", first), Exchange("And?", "this", second)]
    prompt = f"Q: Why?\nA: {first}\n\nQ: And? (this)\nA: "
    assert second == generate(model, prompt, replace(sampling, seed=4)).strip()
    alone = gpt2cli.chat(model, replace(sampling, seed=4))
    alone.exchanges = chat.exchanges[:1]
    assert alone.ask("And?", "this") == ask(model, "And?", replace(sampling, seed=4), "this")


def test_the_answer_is_that_of_the_command(run: Run, tmp_path: Path) -> None:
    model = sayer()
    for name, facts in (
        ("tuned", {"template": SHORT.to_dict()}),
        ("base", {}),
        ("text", {"provenance": {"data": {"kind": "text"}}}),
    ):
        file = tmp_path / f"{name}.pt"
        save_checkpoint(model, file, **facts)  # type: ignore[arg-type]
        done = run("chat", "--ckpt", str(file), "--prompt", "Why?", "--temp", "0", "-n", "8", "--precision", "fp32")
        assert done.returncode == 0, done.stderr
        answer = ask(gpt2cli.load(ckpt=file, precision="fp32", device="cpu"), "Why?", GREEDY)
        assert done.stdout == answer + "\n" and answer
        assert ask(load_plain(ckpt=file, device="cpu"), "Why?", GREEDY) == answer


def test_a_damaged_template_is_named() -> None:
    with pytest.raises(CheckpointError, match="the prompt template is damaged"):
        ask(sayer(template={"only": "this"}), "Why?")
