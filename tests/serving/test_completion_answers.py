"""Text completions in OpenAI's shape."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.config import VOCAB_SIZE
from gpt2cli.serving.completion_answers import CompletionAnswer, legacy_logprobs
from gpt2cli.serving.text_pieces import TokenPlaces, token_name
from gpt2cli.serving.text_request import NewText, TextEvent
from gpt2cli.tokenizer import END_OF_TEXT_ID, StreamDecoder, decode, encode, encoding
from tests.serving.scripted import MODEL, asked, entry, text_events

QUOTES = encode("“quote” café 日本 👍!")
"""Tokens, some of which are parts of characters."""
TOKENS = st.lists(st.sampled_from([*QUOTES, *encode("Once upon a time\n\n"), 447, 222, 128]), min_size=1, max_size=30)


def both(request: Any, events: list[TextEvent]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole answer and the chunks."""
    whole, stream = (CompletionAnswer(request, MODEL, 7) for _ in range(2))
    pieces = [piece for event in events for piece in whole.add(event)]
    return whole.whole(pieces), [stream.chunk(piece) for event in events for piece in stream.add(event)]


def test_a_whole_answer() -> None:
    answer, _ = both(asked(), list(text_events(encode(" cat sat"))))
    assert answer.pop("id").startswith("cmpl-")
    assert answer == {
        "object": "text_completion",
        "created": 7,
        "model": "tiny",
        "system_fingerprint": "fp_0123456789ab",
        "choices": [{"text": " cat sat", "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def test_chunks_have_the_same_id_and_end_with_the_reason() -> None:
    _, chunks = both(asked(include_usage=True), list(text_events(encode(" cat sat"))))
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["text"] for chunk in chunks] == [" cat", " sat", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "length"]
    assert all(chunk["usage"] is None for chunk in chunks)


def test_usage_counts_a_prompt_once_and_all_new_tokens() -> None:
    request = asked(prompts=[(1, 2, 3), (4,)], n=2)
    answer = CompletionAnswer(request, MODEL, 7)
    for index in (2, 0, 3, 1):
        for event in text_events([10, 11], index):
            assert not answer.is_complete
            answer.add(event)
    assert answer.is_complete
    assert answer.usage() == {"prompt_tokens": 4, "completion_tokens": 8, "total_tokens": 12}
    assert answer.usage_chunk()["choices"] == []


def test_texts_are_in_the_order_of_their_indices() -> None:
    request = asked(prompts=[(1,), (2,)])
    events = [*text_events([11], 1), *text_events([10], 0)]
    answer, _ = both(request, events)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [choice["text"] for choice in answer["choices"]] == [decode([10]), decode([11])]


@settings(max_examples=100, deadline=None)
@given(TOKENS, TOKENS, st.booleans())
def test_joined_chunks_are_the_whole_answer(prompt: list[int], ids: list[int], echo: bool) -> None:
    request = asked(prompts=[prompt], echo=echo, logprobs=2)
    answer, chunks = both(request, list(text_events(ids, prompt=prompt)))
    choices = [chunk["choices"][0] for chunk in chunks]
    [whole] = answer["choices"]
    assert (
        "".join(choice["text"] for choice in choices) == whole["text"] == (decode(prompt) if echo else "") + decode(ids)
    )
    for name, entries in whole["logprobs"].items():
        assert entries == [each for choice in choices if choice["logprobs"] for each in choice["logprobs"][name]]
        assert len(entries) == (len(prompt) if echo else 0) + len(ids)
    if echo:
        assert choices[0]["text"] == decode(prompt)
        assert len(choices[0]["logprobs"]["tokens"]) == len(prompt)
        assert whole["logprobs"]["token_logprobs"][0] is whole["logprobs"]["top_logprobs"][0] is None


@settings(max_examples=100, deadline=None)
@given(TOKENS, TOKENS)
def test_an_offset_is_the_place_of_a_tokens_first_character(prompt: list[int], ids: list[int]) -> None:
    answer, _ = both(asked(prompts=[prompt], echo=True, logprobs=0), list(text_events(ids, prompt=prompt)))
    text, logprobs = answer["choices"][0]["text"], answer["choices"][0]["logprobs"]
    offsets = logprobs["text_offset"]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0
    assert offsets[len(prompt)] == len(decode(prompt))
    for number, (start, token) in enumerate(zip(offsets, [*prompt, *ids], strict=True)):
        part = prompt[:number] if number < len(prompt) else ids[: number - len(prompt)]
        characters = StreamDecoder()
        before = "".join(map(characters.push, part))
        assert start == len(before) + (0 if number < len(prompt) else len(decode(prompt)))
        if characters.is_empty and not token_name(token).startswith("bytes:"):
            assert text.startswith(token_name(token), start)


def test_parts_of_a_character_have_its_offset() -> None:
    ids = encode("a “")
    places = TokenPlaces()
    placed = [places.place(token, None) for token in ids]
    assert [(token_name(each.id), each.start, each.end) for each in placed] == [
        ("a", 0, 1),
        ("bytes: \\xe2\\x80", 1, 3),
        ("bytes:\\x9c", 2, 3),
    ]


def test_each_token_has_a_name_of_its_own() -> None:
    assert len({token_name(token) for token in range(VOCAB_SIZE)}) == VOCAB_SIZE


def test_a_name_is_the_text_or_gives_the_bytes() -> None:
    for token in range(0, VOCAB_SIZE, 7):
        name, content = token_name(token), encoding().decode_single_token_bytes(token)
        if name.startswith("bytes:"):
            with pytest.raises(UnicodeDecodeError):
                content.decode()
            assert name.removeprefix("bytes:").encode().decode("unicode_escape").encode("latin-1") == content
        else:
            assert name.encode() == content


def test_the_taken_token_is_among_the_likeliest_with_the_same_number() -> None:
    places = TokenPlaces()
    top = [(262, -0.1234567890123), (257, -2.5)]
    tokens = [places.place(262, entry(262, -0.1234567890123, top)), places.place(340, entry(340, -9.75, top))]
    found = legacy_logprobs(tokens)
    assert found["top_logprobs"] == [
        {" the": -0.1234567890123, " a": -2.5},
        {" the": -0.1234567890123, " a": -2.5, " it": -9.75},
    ]
    assert found["token_logprobs"][0] == max(found["top_logprobs"][0].values())  # greedy, for lm-evaluation-harness
    assert found["token_logprobs"][1] != max(found["top_logprobs"][1].values())


def test_an_end_of_text_has_an_entry_and_no_text() -> None:
    request = asked(prompts=[(464, 3797)], echo=True, logprobs=1)
    events = [*text_events([], prompt=(464, 3797))]
    events.insert(1, NewText(0, "", (entry(END_OF_TEXT_ID),)))
    answer, _ = both(request, events)
    [choice] = answer["choices"]
    assert choice["text"] == "The cat"
    assert choice["logprobs"]["tokens"] == ["The", " cat", "<|endoftext|>"]
    assert choice["logprobs"]["text_offset"] == [0, 3, 7]
