"""Earlier exchanges in a prompt: as many of the newest as fit, and never less than what is asked."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt2cli
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.generation.conversation import Chat, ask, compose, transcript
from gpt2cli.generation.text import complete, generate
from gpt2cli.model.gpt import GPT
from gpt2cli.model.origin import Origin
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode
from tests.conftest import Run
from tests.models import SMALL, small_model

SHORT = PromptTemplate("Q: {instruction} ({input})\nA: ", "Q: {instruction}\nA: ")
texts = st.text("ab \n🌍", min_size=1, max_size=12)
exchanges = st.lists(st.builds(Exchange, texts, st.just("") | texts, texts), max_size=5)


@settings(deadline=None)  # the first use of the tokenizer takes longer
@given(exchanges, texts, st.integers(1, 200), st.integers(0, 100))
def test_the_newest_that_fit_are_taken_and_no_fewer(
    earlier: list[Exchange], asked: str, block_size: int, max_new_tokens: int
) -> None:
    ids, taken = compose(SHORT, earlier, Exchange(asked), block_size, max_new_tokens)
    room = block_size - min(max_new_tokens, block_size // 2)
    assert ids == prompt_ids(SHORT, earlier[len(earlier) - taken :], Exchange(asked))
    assert taken == 0 or len(ids) <= room
    if taken < len(earlier):
        assert len(prompt_ids(SHORT, earlier[len(earlier) - taken - 1 :], Exchange(asked))) > room


@settings(deadline=None)
@given(exchanges, texts)
def test_a_limit_beyond_the_window_leaves_half_of_it_for_the_prompt(earlier: list[Exchange], asked: str) -> None:
    assert compose(SHORT, earlier, Exchange(asked), 60, 10**6) == compose(SHORT, earlier, Exchange(asked), 60, 30)


def test_a_text_just_fits_or_is_one_token_too_long() -> None:
    earlier = [Exchange("Why <|endoftext|>?", "", "<|endoftext|>")]
    ids, taken = compose(SHORT, earlier, Exchange("And?"), 1000, 0)
    assert taken == 1 and ids.count(END_OF_TEXT_ID) == 1  # in the texts it is plain text
    assert compose(SHORT, earlier, Exchange("And?"), len(ids), 0)[1] == 1
    assert compose(SHORT, earlier, Exchange("And?"), len(ids) - 1, 0)[1] == 0


def test_without_a_template_it_is_one_text_and_what_is_typed_begins_a_line() -> None:
    earlier = [Exchange("Once", "", " upon a time"), Exchange("", "", " there was"), Exchange("An owl", "", " said")]
    text = "Once upon a time there was\nAn owl said\nThe fox"
    assert compose(None, earlier, Exchange("The fox"), 1024, 100) == (encode(text), 3)
    assert compose(None, earlier, Exchange(""), 1024, 100) == (encode(text.removesuffix("\nThe fox")), 3)
    assert transcript([*earlier, Exchange("The fox", "", " slept.")]) == text + " slept."
    assert compose(None, [], Exchange("The fox", "An owl"), 1024, 100) == (encode("An owl\nThe fox"), 0)
    # an old answer that is replaced is no part of the prompt, and neither is a line break that an answer began with
    assert compose(None, earlier, Exchange("The fox", "", "slept"), 1024, 100) == (encode(text), 3)
    assert compose(None, [Exchange("", "", "\n there")], Exchange(""), 1024, 100) == (encode("\n there"), 1)
    with_two = encode("there was\nAn owl said\nThe fox")
    cut = [earlier[0], Exchange("", "", "there was"), earlier[2]]
    assert compose(None, cut, Exchange("The fox"), len(with_two), 0) == (with_two, 2)


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
    ids = prompt_ids(SHORT, chat.exchanges[:1], Exchange("And?", "this"))
    [sample] = complete(model, [ids], replace(sampling, seed=4))
    assert second == sample.text.strip()
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


def answers_of(chat: Chat) -> list[str]:
    return [chat.ask("Why?"), chat.ask("And?"), chat.ask("So?")]


@pytest.mark.parametrize("turns", [None, 0, 1])
def test_a_model_of_conversations_includes_all_earlier_exchanges_by_default(tmp_path: Path, turns: int | None) -> None:
    file = tmp_path / "talk.pt"
    for most, default in ((4, 9), (1, 0), (True, 0), ("4", 0), (None, 0)):
        save_checkpoint(sayer(), file, template=SHORT.to_dict(), provenance={"data": {"turns": most}})
        for model in (gpt2cli.load(ckpt=file, precision="fp32", device="cpu"), load_plain(ckpt=file, device="cpu")):
            assert model.origin.is_conversational == (default > 0)
            expected = Chat(model, GREEDY, turns=default if turns is None else turns)
            assert answers_of(gpt2cli.chat(model, GREEDY, turns=turns)) == answers_of(expected)


def test_a_system_text_replaces_the_preamble_of_every_prompt() -> None:
    model = sayer(template=ALPACA.with_system("Stored.").to_dict())
    for system, template in (
        ("", ALPACA.with_system("Stored.")),
        ("You are {input}.\n", ALPACA.with_system("You are {input}.")),
    ):
        chat = gpt2cli.chat(model, GREEDY, turns=9, system=system)
        chat.ask("Why?")
        ids = prompt_ids(template, chat.exchanges, Exchange("And?"))
        [sample] = complete(model, [ids], GREEDY)
        assert chat.ask("And?") == sample.text.strip()


@pytest.mark.parametrize("facts", [{"template": SHORT.to_dict()}, {"is_plain_text": True}], ids=["template", "text"])
def test_a_system_text_without_a_place_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="leave it out"):
        gpt2cli.chat(sayer(**facts), system="You are a pirate.")
