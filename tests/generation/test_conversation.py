"""Earlier exchanges in a prompt: as many of the newest as fit, and never less than what is asked."""

from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.generation.conversation import Exchange, compose
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import encode

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
