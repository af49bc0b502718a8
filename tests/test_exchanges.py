"""The tokens of a conversation: each exchange as if it was the only one, with an end of text after its answer."""

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.errors import DataError
from gpt2cli.exchanges import Exchange, exchange_ids, prompt_ids
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, decode, encode

SHORT = PromptTemplate("Q: {instruction} ({input})\nA: ", "Q: {instruction}\nA: ")
texts = st.text("ab \n🌍<|>", max_size=12) | st.just(END_OF_TEXT)
exchanges = st.builds(Exchange, texts, texts, texts)


def test_the_wording() -> None:
    earlier = [Exchange("Add 1 and 2.", "", "3"), Exchange("Translate.", "Hund", "dog")]
    ids = prompt_ids(SHORT, earlier, Exchange("Why?", "", "not this"))
    text = "Q: Add 1 and 2.\nA: 3<|endoftext|>Q: Translate. (Hund)\nA: dog<|endoftext|>Q: Why?\nA: "
    assert decode(ids) == text
    assert ids.count(END_OF_TEXT_ID) == 2


@settings(deadline=None)
@given(st.lists(exchanges, max_size=3), exchanges)
def test_a_conversation_is_its_exchanges_one_after_the_other(earlier: list[Exchange], asked: Exchange) -> None:
    parts = [exchange_ids(ALPACA, exchange) for exchange in earlier]
    alone = encode(ALPACA.prompt(asked.instruction, asked.input), allow_special=False)
    assert prompt_ids(ALPACA, earlier, asked) == [*chain.from_iterable(parts), *alone]
    for exchange, ids in zip(earlier, parts, strict=True):
        answer = encode(exchange.output, allow_special=False)
        assert ids == [*prompt_ids(ALPACA, [], exchange), *answer, END_OF_TEXT_ID]
        assert ids.count(END_OF_TEXT_ID) == 1  # in a text it is plain text


@pytest.mark.parametrize("bad", [Exchange("\udcff"), Exchange("a", "\udcff"), Exchange("a", "", "\udcff")])
def test_a_text_that_is_not_unicode_is_named(bad: Exchange) -> None:
    with pytest.raises(DataError, match="not valid Unicode"):
        prompt_ids(ALPACA, [bad], Exchange("b"))
