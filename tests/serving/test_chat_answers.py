"""Chat completions in OpenAI's shape."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.serving.chat_answers import ChatAnswer
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.text_request import NewText, TextEvent
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode, encoding
from tests.serving.scripted import MODEL, asked, entry, text_events

BLANKS = [220, 198, 628, 197]
"""Tokens of blanks and newlines."""
TOKENS = st.lists(st.sampled_from([*BLANKS, *BLANKS, *encode("“I” am a 日本 cat\u3000 \u00a0")]), max_size=20)


def both(
    request: Any, events: list[TextEvent], model: ServedModel = MODEL
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The whole answer and the chunks."""
    whole, stream = (ChatAnswer(request, model, 7) for _ in range(2))
    pieces = [piece for event in events for piece in whole.add(event)]
    return whole.whole(pieces), [stream.chunk(piece) for event in events for piece in stream.add(event)]


def test_a_whole_answer() -> None:
    answer, _ = both(asked(), list(text_events(encode("\n\n A cat.\n\n"))))
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer == {
        "object": "chat.completion",
        "created": 7,
        "model": "tiny",
        "system_fingerprint": "fp_0123456789ab",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A cat.", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6},
    }


def test_the_role_comes_first_and_the_reason_last() -> None:
    _, chunks = both(asked(), list(text_events(encode(" A\n cat\n"))))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "A"}, None),
        ({"content": "\n cat"}, None),
        ({}, "length"),
    ]


def test_an_answer_of_blanks_is_empty() -> None:
    answer, chunks = both(asked(logprobs=0), list(text_events(BLANKS)))
    [choice] = answer["choices"]
    assert choice["message"]["content"] == ""
    assert choice["logprobs"] == {"content": [], "refusal": None}
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": ""}, {}]


def test_the_end_of_text_has_no_entry() -> None:
    events = list(text_events(encode("A cat\n")))
    events.insert(-1, NewText(0, "", (entry(END_OF_TEXT_ID),)))
    answer, _ = both(asked(logprobs=0), events)
    assert [each["token"] for each in answer["choices"][0]["logprobs"]["content"]] == ["A", " cat"]


@settings(max_examples=200, deadline=None)
@given(TOKENS)
def test_joined_chunks_are_the_whole_answer(ids: list[int]) -> None:
    text = encoding().decode(ids)
    answer, chunks = both(asked(logprobs=0), list(text_events(ids)))
    choices = [chunk["choices"][0] for chunk in chunks]
    [whole] = answer["choices"]
    sent = "".join(choice["delta"].get("content", "") for choice in choices)
    assert sent == whole["message"]["content"] == text.strip()
    entries = [each for choice in choices if choice["logprobs"] for each in choice["logprobs"]["content"]]
    assert entries == whole["logprobs"]["content"]
    # no blanks of the ends, and the rest in full: the entries' bytes are the text, with blanks of the first token
    content = b"".join(bytes(each["bytes"]) for each in entries).decode(errors="replace")
    assert content.lstrip() == text.strip()


@settings(max_examples=200, deadline=None)
@given(TOKENS)
def test_the_answer_of_a_model_without_a_template_is_exact(ids: list[int]) -> None:
    plain = replace(MODEL, template=None)
    answer, chunks = both(asked(logprobs=0), list(text_events(ids)), plain)
    choices = [chunk["choices"][0] for chunk in chunks]
    message = answer["choices"][0]["message"]["content"]
    assert message == "".join(choice["delta"].get("content", "") for choice in choices) == encoding().decode(ids)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert [each for choice in choices if choice["logprobs"] for each in choice["logprobs"]["content"]] == entries
    assert [each["bytes"] for each in entries] == [[*encoding().decode_single_token_bytes(token)] for token in ids]


def test_logprobs_give_the_likeliest_tokens_with_their_bytes() -> None:
    events = list(text_events(encode("A “")))
    answer, _ = both(asked(logprobs=1), events)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert entries[0] == {"token": "A", "logprob": -1.5, "bytes": [65], "top_logprobs": []}
    assert [each["token"] for each in entries[1:]] == ["bytes: \\xe2\\x80", "bytes:\\x9c"]
    assert entries[1]["bytes"] == [32, 0xE2, 0x80]
