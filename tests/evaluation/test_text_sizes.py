"""Bytes and words of tokens add up to those of the text."""

from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.data.text import tokenize
from gpt2cli.evaluation.text_sizes import sizes_of

SIGNS = st.sampled_from("ab1,. \n\t\r\x0b\x1c\x85\u00a0\u2003\u3000é漢🦜")


@given(st.text(SIGNS, min_size=1, max_size=60))
def test_the_sums_are_the_texts_own(text: str) -> None:
    [tokens] = tokenize([text])
    sizes = sizes_of(text, tokens)
    assert sizes.shape == (len(tokens), 2)
    assert sizes.sum(dim=0).tolist() == [len(text.encode()), len(text.split())]


def test_a_word_counts_where_it_begins() -> None:
    text = " Unbelievably good"
    [tokens] = tokenize([text])
    words = sizes_of(text, tokens)[:, 1].tolist()
    assert words[0] == words[-1] == 1 and sum(words) == 2 and len(words) > 2
