"""The bundled encoding against tiktoken's own, and the streaming decoder against whole decoding."""

import hashlib
import json
import shutil
import time
from itertools import pairwise

import pytest
import tiktoken
import tiktoken_ext.openai_public
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli import paths, tokenizer
from gpt2cli.errors import CheckpointError, DataError

HARD = [
    "",
    " ",
    "Hello, world! It's we'll they've I'm 'S 'LL",
    "  leading, trailing  \n\n\t mixed \r\n white   space \u00a0\u3000 ",
    "def f(x):\n    return x**2  # 12345 6789\n",
    "naïve café — “quotes” … ½ €",
    "日本語のテキスト 한국어 العربية हिन्दी",
    "🌍🇨🇭👩‍👩‍👧‍👦 e\u0301 \u200d \ufeff \x00\x1b[31m",
    "a" * 3000,
    "<|endoftext|> <|endoftext|",
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """tiktoken.get_encoding("gpt2"), with our vocabulary in its cache. It checks the hashes of these files."""
    cache = tmp_path_factory.mktemp("tiktoken")
    address = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
    named = lambda file: cache / hashlib.sha1((address + file).encode()).hexdigest()  # noqa: E731
    shutil.copy(paths.asset("vocab.bpe"), named("vocab.bpe"))
    named("encoder.json").write_text(json.dumps(tokenizer.vocabulary()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        yield tiktoken.Encoding(**tiktoken_ext.openai_public.gpt2())


def test_same_vocabulary_as_tiktokens(theirs):
    ours = tokenizer.encoding()
    assert ours.n_vocab == theirs.n_vocab == 50257
    assert ours._mergeable_ranks == theirs._mergeable_ranks
    assert ours._special_tokens == theirs._special_tokens
    assert ours._pat_str == theirs._pat_str


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hard_texts_encode_as_tiktoken_does(theirs, text):
    assert tokenizer.encode(text) == theirs.encode(text, allowed_special="all")
    assert tokenizer.encode(text, allow_special=False) == theirs.encode_ordinary(text)


LONG = {
    "blanks": " " * 1_100_000 + "x",
    "newlines": "\n" * 1_100_000 + "x",
    "no-break spaces": "\u00a0" * 1_100_000 + "x",
    "mixed blanks": " \t\n\u3000" * 300_000 + "x",
    "many runs": (" " * 200_000 + "x") * 6,
    "letters": "a" * 1_100_000,
    "digits": "1" * 1_100_000,
    "signs": "^" * 1_100_000,
    "apostrophes": "'" * 1_100_000 + "s",
    "accents": "e\u0301" * 300_000,
    "emoji": "🌍" * 150_000,
    "ends of text": "<|endoftext|>" * 60_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_texts_of_any_length_and_kind_are_taken(text):
    start = time.process_time()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text, allow_special=False)) == text
    assert time.process_time() - start < 20  # linear time: a second or two


def test_a_long_run_of_blanks_has_the_ids_of_the_reference(theirs):
    text = "a" + " " * 300_000 + "x"
    assert tokenizer.encode(text) == theirs.encode(text)


@pytest.mark.parametrize(
    "sentence", ["Ein Wort, und 'noch eins'. ", "没有空格的句子，一直写下去。", "a_b[1].c('d')->e;"]
)
def test_a_long_text_has_the_ids_of_the_reference(theirs, sentence):
    text = sentence * (400_000 // len(sentence))
    assert len(list(tokenizer.pieces(text))) > 3
    assert tokenizer.encode(text) == theirs.encode(text)


@given(st.text(alphabet=st.sampled_from("ab é\n\t' 🦜x1,_。一²'sll"), max_size=60), st.integers(1, 9))
def test_pieces_make_the_tokens_of_the_whole(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "PIECE", size)
        patch.setattr(tokenizer, "LONGEST_PIECE", 2 * size)
        parts = list(tokenizer.pieces(text))
    assert "".join(parts) == text
    assert all(len(part) <= 2 * size for part in parts)
    whole = tokenizer.encoding().encode_ordinary
    for last, part in pairwise(parts):  # a cut that was not forced changes nothing
        if len(last) < 2 * size:
            assert whole(last) + whole(part) == whole(last + part)


@given(st.lists(st.sampled_from(["<|endoftext|>", " ", "\n", "a", "<|", "'s", "|>"]), max_size=12).map("".join))
def test_the_special_token_divides_a_prompt_as_the_reference_does(text):
    expected = tokenizer.encoding().encode(text, allowed_special="all")
    assert tokenizer.encode(text) == expected


@given(st.text())
def test_any_text_comes_back(text):
    assert tokenizer.decode(tokenizer.encode(text, allow_special=False)) == text


def test_end_of_text_is_special_in_prompts_only():
    assert tokenizer.encode("a<|endoftext|>b") == [64, 50256, 65]
    assert 50256 not in tokenizer.encode("a<|endoftext|>b", allow_special=False)


def test_lone_surrogates_are_refused_with_their_place():
    with pytest.raises(DataError, match="at byte 3"):
        tokenizer.encode("é \udc80")


def test_a_damaged_vocabulary_is_noticed(tmp_path, monkeypatch):
    damaged = tmp_path / "vocab.bpe"
    damaged.write_bytes(paths.asset("vocab.bpe").read_bytes()[:-2])
    monkeypatch.setattr(paths, "asset", lambda name: damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        tokenizer._read_ranks()


@given(st.text())
def test_streamed_text_equals_decoded_text(text):
    stream = tokenizer.StreamDecoder()
    assert "".join(map(stream.push, tokenizer.encode(text, allow_special=False))) + stream.finish() == text


@given(st.lists(st.integers(0, 50256), max_size=40))
def test_streamed_ids_equal_decoded_ids_even_if_they_are_no_text(ids):
    stream = tokenizer.StreamDecoder()
    assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids)


def test_a_character_is_held_back_until_it_is_whole():
    first, *others = tokenizer.encode("🌍")
    assert others
    stream = tokenizer.StreamDecoder()
    assert [stream.push(token) for token in [first, *others]][-1] == "🌍"
    dangling = tokenizer.StreamDecoder()
    assert dangling.push(first).strip() == ""
    assert dangling.finish() == "\ufffd"


@pytest.mark.parametrize("id", [-1, 50257, 999_999, 2**40])
def test_an_id_without_a_token_is_told(id):
    with pytest.raises(DataError, match="give ids from 0 to 50256"):
        tokenizer.decode([id])
