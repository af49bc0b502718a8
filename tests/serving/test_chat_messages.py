"""The messages of a chat become the prompt that `gpt2 chat --turns` would read."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.config import CHAT
from gpt2cli.exchanges import Exchange
from gpt2cli.generation.conversation import Chat, compose
from gpt2cli.model.gpt import GPT
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.serving.chat_fields import chat_request
from gpt2cli.serving.chat_messages import read_messages
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.tokenizer import END_OF_TEXT, decode, encode
from tests.models import small_model
from tests.serving.served_models import anything, check_answer, described_model

Messages = list[dict[str, Any]]
BARE = PromptTemplate("Q: {instruction} ({input})\nA: ", "Q: {instruction}\nA: ")


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def prompt(messages: Messages, model: ServedModel, max_tokens: int = 16) -> list[int]:
    return [*chat_request({"messages": messages, "max_tokens": max_tokens}, model).texts[0].ids]


def refusal(messages: Any, template: PromptTemplate | None = ALPACA) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read_messages(messages, template)
    return caught.value


texts = st.text("ab \n🌍<|>#", max_size=12) | st.just(END_OF_TEXT)
typed = texts.filter(str.strip)


@settings(deadline=None)
@given(st.lists(st.tuples(typed, texts), max_size=6), typed, st.sampled_from([32, 64, 256]), st.integers(0, 300))
def test_the_tokens_are_those_of_a_chat(
    earlier: list[tuple[str, str]], asked: str, window: int, max_tokens: int
) -> None:
    messages = [message for question, answer in earlier for message in (user(question), assistant(answer))]
    exchanges = [Exchange(question.strip(), "", answer.strip()) for question, answer in earlier if answer.strip()]
    ids, _ = compose(BARE, exchanges, Exchange(asked.strip()), window, max_tokens)
    if len(ids) <= window:
        assert prompt([*messages, user(asked)], described_model(BARE, window), max_tokens) == ids


@pytest.mark.parametrize("is_plain_text", [False, True])
def test_the_answers_of_a_chat_make_the_same_prompts(is_plain_text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client gets and sends back is what the command keeps."""
    model = small_model()
    model.origin = type(model.origin)(is_plain_text=is_plain_text)
    read: list[list[int]] = []
    window = model.config.block_size
    served = described_model(None if is_plain_text else ALPACA, window)
    seen = _watch_prompts(monkeypatch, read)
    chat = Chat(model, CHAT, turns=window)
    chat.sampling = type(CHAT)(max_new_tokens=4, seed=0)
    messages: Messages = []
    for question in ("Hi", "a b", "c"):
        chat.ask(question)
        messages.append(user(question))
        assert prompt(messages, served, 4) == seen[-1]
        messages.append(assistant(chat.exchanges[-1].output))


def _watch_prompts(monkeypatch: pytest.MonkeyPatch, read: list[list[int]]) -> list[list[int]]:
    from gpt2cli.generation import conversation

    original = conversation.begin_answer

    def watched(model: GPT, template: Any, ids: list[int], sampling: Any) -> Any:
        read.append([*ids])
        return original(model, template, ids, sampling)

    monkeypatch.setattr(conversation, "begin_answer", watched)
    return read


def test_the_oldest_exchanges_that_do_not_fit_are_left_out() -> None:
    messages = [message for i in range(50) for message in (user(f"question {i}"), assistant(f"answer {i}"))]
    text = decode(prompt([*messages, user("last")], described_model(BARE, 128)))
    assert text.endswith("Q: question 49\nA: answer 49<|endoftext|>Q: last\nA: ")
    assert "question 40" not in text


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_text_replaces_the_preamble(role: str) -> None:
    text = decode(prompt([{"role": role, "content": " Be brief. "}, user("Hi")], described_model()))
    assert text == "Be brief.\n\n### Instruction:\nHi\n\n### Response:\n"
    empty = prompt([system(" "), user("Hi")], described_model())
    assert empty == prompt([user("Hi")], described_model())


def test_parts_of_a_content_are_joined_by_line_breaks() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]
    assert prompt([user(parts)], described_model()) == prompt([user("a\nb\nc")], described_model())


def test_an_empty_answer_leaves_its_exchange_out() -> None:
    messages = [user("a"), assistant(""), user("b")]
    assert prompt(messages, described_model()) == prompt([user("b")], described_model())


def test_questions_without_an_answer_between_them_are_one() -> None:
    """llm sends no message for an empty answer."""
    messages = [user("a"), user(" b"), assistant("c"), user("d"), user("e"), user("f")]
    joined = [user("a\n b"), assistant("c"), user("d\ne\nf")]
    for template in (ALPACA, None):
        assert prompt(messages, described_model(template)) == prompt(joined, described_model(template))
    assert read_messages(messages, ALPACA).place == "messages[5]"


def test_fields_that_are_null_or_empty_may_come_back_with_an_answer() -> None:
    answer = assistant("Hi") | {"refusal": None, "annotations": [], "audio": None, "tool_calls": None}
    assert prompt([user("a"), answer, user("b")], described_model())


def test_without_a_template_the_text_is_continued() -> None:
    messages = [user(" Once"), assistant(" upon a time "), user("there was ")]
    assert prompt(messages, described_model(None)) == encode("Once upon a time \nthere was")


def test_the_end_of_text_in_a_message_is_plain_text() -> None:
    assert 50256 not in prompt([user(END_OF_TEXT)], described_model())
    assert 50256 not in prompt([user(END_OF_TEXT)], described_model(None))


@pytest.mark.parametrize(
    ("messages", "param", "part"),
    [
        ([], "messages", "at least one message of the user"),
        ([system("a")], "messages", "at least one message of the user"),
        (["a"], "messages[0]", "must be an object, not 'a'"),
        ([{"content": "a"}], "messages[0].role", "must be a text, not null"),
        ([{"role": "user"}], "messages[0].content", "a text or a list of text parts, not null"),
        ([user(1)], "messages[0].content", "not 1"),
        ([user("\ud800")], "messages[0].content", "half a surrogate pair"),
        ([user(" ")], "messages[0].content", "is empty"),
        ([{"role": "wizard", "content": "a"}], "messages[0].role", "system, user or assistant, not 'wizard'"),
        ([assistant("a")], "messages[0]", "the user begins"),
        ([user("a"), assistant("b"), assistant("c"), user("d")], "messages[2]", "must take turns"),
        ([user("a"), user(" ")], "messages[1].content", "is empty"),
        ([user("a"), assistant("b")], "messages[1]", "the last message, must be of the user"),
        ([user("a"), assistant("b"), system("c"), user("d")], "messages[2]", "must be the first one"),
        ([system("a"), system("b"), user("c")], "messages[1]", "must be the first one"),
        ([user("a"), assistant("b"), {"role": "tool", "content": "c"}], "messages[2].role", "tools are not supported"),
        ([user("a"), {"role": "assistant", "tool_calls": [{}]}], "messages[1].tool_calls", "not supported"),
        ([user("a") | {"name": "Bob"}], "messages[0].name", "not supported"),
        (
            [user("a"), assistant("b"), user([{"type": "image_url", "image_url": {"url": "x"}}])],
            "messages[2].content[0]",
            "of the type image_url, and only texts are supported",
        ),
        ([user(["a", {"type": "input_audio"}])], "messages[0].content[1]", "input_audio"),
        ([user([{"type": "text"}])], "messages[0].content[0].text", "must be a text, not null"),
    ],
)
def test_other_messages_are_refused_with_their_place(messages: Any, param: str, part: str) -> None:
    error = refusal(messages)
    assert error.param == param
    assert error.message.startswith(param)
    assert part in error.message


@pytest.mark.parametrize(
    ("template", "part"), [(None, "a text that is continued has no system text"), (BARE, "has no preamble")]
)
def test_a_system_text_without_a_place_is_refused(template: PromptTemplate | None, part: str) -> None:
    error = refusal([system("a"), user("b")], template)
    assert error.param == "messages[0]"
    assert part in error.message


roles = st.sampled_from(["system", "user", "assistant", "tool"])
messages = st.fixed_dictionaries({"role": roles | anything, "content": texts | anything}) | anything


@settings(deadline=None)
@given(st.lists(messages, max_size=4))
def test_any_messages_are_read_or_refused(values: list[Any]) -> None:
    try:
        found = read_messages(values, ALPACA)
    except RefusedError as error:
        check_answer(error, "messages")
    else:
        assert found.asked.instruction
