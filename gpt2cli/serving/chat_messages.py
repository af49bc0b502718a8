"""Reads the messages of a chat request: a system text, exchanges, and the user's last message.

The roles and the parts of a content are those that training data can have: see data/messages.py. Calls of tools, images
and sounds are refused with their place, such as `messages[2].content[0]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt2cli.data.messages import ASSISTANT, ROLES, SYSTEM, TEXT_PARTS, TOOL_ROLES, USER
from gpt2cli.errors import UsageError
from gpt2cli.exchanges import Exchange
from gpt2cli.prompts import PromptTemplate, check_place_for_system
from gpt2cli.serving.field_readers import entries, some_object, text, wrong
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.untrusted import shown_name


@dataclass(frozen=True)
class ChatMessages:
    """What a chat request asks.

    template  the model's, with the system text of the request
    earlier   the exchanges before the last message. The output is empty if the answer was.
    asked     the user's last message
    place     the place of what to shorten if the prompt is too long: of `asked`, or of a longer system text
    """

    template: PromptTemplate | None
    earlier: tuple[Exchange, ...]
    asked: Exchange
    place: str


@dataclass(frozen=True)
class _Message:
    role: str
    content: str
    place: str


def read_messages(values: Sequence[Any], template: PromptTemplate | None) -> ChatMessages:
    """Check the messages. Raises RefusedError, with the place.

    template  the model's. Without one, an answer is the exact text that the model wrote, and the next message continues
              it; with one, blank space at the ends of an answer is left out.
    """
    messages = [_message(each, place) for each, place in entries([*values], "messages")]
    system = [messages.pop(0)] if messages and messages[0].role == SYSTEM else []
    for message in system:
        template = _with_system(template, message)
    if not messages:
        raise RefusedError(400, "messages must have at least one message of the user", "messages")
    *before, last = _in_turns(messages)
    if last.role != USER:
        raise RefusedError(400, f"{last.place}, the last message, must be of the user", last.place)
    earlier = [
        Exchange(question.content.strip(), "", answer.content if template is None else answer.content.strip())
        for question, answer in zip(before[::2], before[1::2], strict=True)
    ]
    longest = max([last, *system], key=lambda message: len(message.content))
    return ChatMessages(template, tuple(earlier), Exchange(last.content.strip()), longest.place)


def _in_turns(messages: Sequence[_Message]) -> list[_Message]:
    """Messages of user and assistant in turns, of which the user has the first. Raises RefusedError.

    Messages of the user that follow each other become one, with line breaks between them: `llm`, for example, sends no
    message for an empty answer.
    """
    turns: list[_Message] = []
    for message in messages:
        is_asked = bool(turns) and turns[-1].role == USER
        _check_turn(message, is_asked)
        if is_asked and message.role == USER:
            message = replace(message, content=f"{turns.pop().content}\n{message.content}")
        turns.append(message)
    return turns


def _check_turn(message: _Message, is_asked: bool) -> None:
    """Refuse an answer unless something is asked, an empty message of the user, and any other role."""
    if message.role == SYSTEM:
        raise RefusedError(400, f"{message.place} is a {SYSTEM} message, which must be the first one", message.place)
    if message.role == ASSISTANT and not is_asked:
        words = f"{message.place} is of the {ASSISTANT}: user and assistant must take turns, and the user begins"
        raise RefusedError(400, words, message.place)
    if message.role == USER and not message.content.strip():
        raise RefusedError(400, f"{message.place}.content is empty: give a text", f"{message.place}.content")


def _with_system(template: PromptTemplate | None, message: _Message) -> PromptTemplate | None:
    """The template with the system text, if it is not empty. Raises RefusedError if there is no place for it."""
    if not message.content.strip():
        return template
    try:
        return check_place_for_system(template).with_system(message.content)
    except UsageError as error:
        raise RefusedError(400, f"{message.place}: {error}", message.place) from None


def _message(value: Any, place: str) -> _Message:
    message = some_object(value, place)
    role = _role(message.get("role"), f"{place}.role")
    for name, other in message.items():  # clients send back answers with fields that are null or empty
        if name not in ("role", "content") and other:
            written = f"{place}.{shown_name(name)}"
            raise RefusedError(400, f"{written} is not supported: a message has a role and a content", written)
    return _Message(role, _content(message.get("content"), f"{place}.content"), place)


def _role(value: Any, place: str) -> str:
    role = text(value, place).lower()
    if role in TOOL_ROLES:
        raise RefusedError(400, f"{place} is {role}, and tools are not supported", place)
    if role not in ROLES:
        raise wrong(value, place, f"{SYSTEM}, {USER} or {ASSISTANT}")
    return ROLES[role]


def _content(value: Any, place: str) -> str:
    """The text of a content, which can be a list of parts. Parts are joined by line breaks."""
    if isinstance(value, list):
        return "\n".join(_part(each, where) for each, where in entries(value, place))
    if not isinstance(value, str):
        raise wrong(value, place, "a text or a list of text parts")
    return text(value, place)


def _part(value: Any, place: str) -> str:
    if isinstance(value, str):
        return text(value, place)
    part = some_object(value, place)
    kind = text(part.get("type", "text"), f"{place}.type")
    if kind not in TEXT_PARTS:
        raise RefusedError(400, f"{place} is of the type {shown_name(kind)}, and only texts are supported", place)
    return text(part.get("text"), f"{place}.text")
