"""Conversations that are stored as lists of messages.

OpenAI's messages have a role and a content, and ShareGPT's a `from` and a `value`. Both are read under any key:

    https://platform.openai.com/docs/guides/supervised-fine-tuning
    https://github.com/lm-sys/FastChat/blob/main/data/dummy_conversation.json

A system text may come first. Then the user and the assistant take turns. Calls of tools, images and sounds are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt2cli.data.columns import Columns, folded
from gpt2cli.data.data_file import MalformedError, checked_text, member
from gpt2cli.data.json_values import NAN, RepeatedKeys, kind_of
from gpt2cli.exchanges import Exchange
from gpt2cli.untrusted import shown, shown_name

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = {
    SYSTEM: SYSTEM,
    "developer": SYSTEM,
    USER: USER,
    "human": USER,
    ASSISTANT: ASSISTANT,
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard"), ASSISTANT),
}
TOOL_ROLES = frozenset(
    ("tool", "tool_call", "tool_response", "function", "function_call", "function_response", "observation", "ipython")
)
TOOL_FIELDS = ("tool_calls", "function_call")
MEDIA = frozenset(("image", "images", "audio", "audios", "video", "videos"))
"""Columns beside the messages that hold what is no text."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""The types of the parts of a content that are texts."""
_NAMES = frozenset(("role", "from", "content", "value", "weight", *TOOL_FIELDS))


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, with texts that have no blank space at either end.

    exchanges     those that are answered
    question      the user's last message if no answer follows; else empty
    system        its system text, which may be empty
    is_share_gpt  whether the messages have the keys of ShareGPT, and not those of OpenAI
    others        the names of fields that are not used but have values
    """

    exchanges: tuple[Exchange, ...]
    question: str
    system: str
    is_share_gpt: bool
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Message:
    role: str
    text: str
    place: str
    is_share_gpt: bool
    others: tuple[str, ...] = ()


def read_conversation(value: dict[str, Any], columns: Columns) -> Conversation:
    """The conversation in a record's columns. Raises MalformedError, with the place, if it is none."""
    for name in value:
        if folded(name) in MEDIA and value[name]:
            raise MalformedError(f"has {shown(name, 40)} beside its messages, and only texts can be learned")
    messages = _messages_of(value, columns)
    system = ""
    if messages[0].role == SYSTEM:
        system = messages[0].text
    if columns.system is not None:
        system = _one_system(value, columns.system, system)
    exchanges, question = _exchanges(messages[1:] if messages[0].role == SYSTEM else messages)
    others = tuple({name: None for message in messages for name in message.others})
    return Conversation(exchanges, question, system, messages[0].is_share_gpt, others)


def _messages_of(value: dict[str, Any], columns: Columns) -> list[_Message]:
    """All messages. If the list begins with an answer, it continues what is in the column of instructions."""
    assert columns.messages is not None  # or else the file holds no conversations
    messages = _list_in(value, columns.messages)
    if not messages:
        raise MalformedError(f"has no messages in {shown(columns.messages, 40)}")
    prompt = None if columns.instruction is None else value.get(columns.instruction)
    if columns.instruction is None or prompt is None:
        return messages
    if isinstance(prompt, list):
        before = _list_in(value, columns.instruction)
    else:
        place = shown(columns.instruction, 40)
        before = [_Message(USER, checked_text(prompt, place).strip(), place, is_share_gpt=False)]
    if messages[0].role == ASSISTANT:
        return before + messages
    users = [message.text for message in messages if message.role == USER]
    if not {message.text for message in before if message.role == USER} <= {*users}:
        names = f"{shown(columns.messages, 40)} that neither continues nor repeats {shown(columns.instruction, 40)}"
        raise MalformedError(f"has {names}")
    return messages


def _list_in(value: dict[str, Any], column: str) -> list[_Message]:
    found = member(value, column, shown(column, 40))
    if not isinstance(found, list):
        raise MalformedError(f"has {kind_of(found)} as {shown(column, 40)}, not a list of messages")
    name = shown_name(column)
    return [_message(each, f"{name}[{i}]") for i, each in enumerate(found)]


def _message(value: Any, place: str) -> _Message:
    if not isinstance(value, dict):
        raise MalformedError(f"has {kind_of(value)} as {place}, not a message")
    if "role" not in value and "from" not in value and not isinstance(value, RepeatedKeys):
        value = {folded(name): each for name, each in value.items()}
    speaker = "from" if "from" in value and "role" not in value else "role"
    role = _role(member(value, speaker, f"{speaker!r} in {place}"), place)
    for name in TOOL_FIELDS:
        if value.get(name):
            raise MalformedError(f"has a tool call ({name!r} in {place}), and tools are not supported")
    weight = value.get("weight")
    if role == ASSISTANT and weight not in (None, 1, NAN):
        raise MalformedError(f"has the weight {shown(weight)} in {place}, and all answers are learned alike")
    usual, other = ("value", "content") if speaker == "from" else ("content", "value")
    key = other if other in value and usual not in value else usual
    text = _text_of(member(value, key, f"{key!r} in {place}"), f"{place}.{key}")
    others: tuple[str, ...] = ()
    if len(value) > 2:
        others = tuple(f"{place.partition('[')[0]}.{name}" for name in value if name not in _NAMES and value[name])
    return _Message(role, text, place, speaker == "from", others)


def _role(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise MalformedError(f"has {kind_of(value)} as the role of {place}, not a text")
    name = folded(value)
    if name in TOOL_ROLES:
        raise MalformedError(f"has a message of a tool ({place} is of {shown(value, 40)}), and tools are not supported")
    if name not in ROLES:
        raise MalformedError(f"has the role {shown(value, 40)} in {place}, not {SYSTEM}, {USER} or {ASSISTANT}")
    return ROLES[name]


def _text_of(content: Any, place: str) -> str:
    """The text of a content, which can be a list of parts. Without blank space at either end, as a chat sends it."""
    if not isinstance(content, list):
        return checked_text(content, place).strip()
    texts = []
    for i, part in enumerate(content):
        where = f"{place}[{i}]"
        if isinstance(part, dict):
            kind = part.get("type", "text")
            if kind not in TEXT_PARTS:
                raise MalformedError(f"has {shown(kind, 40)} as {where}, and only texts can be learned")
            part = member(part, "text", f"'text' in {where}")
        texts.append(checked_text(part, where))
    return "\n".join(texts).strip()


def _one_system(value: dict[str, Any], column: str, system: str) -> str:
    """The system text of a conversation that can have it in a column or as its first message."""
    found = value.get(column)
    if found is None or found == NAN:
        return system
    text = checked_text(found, shown(column, 40)).strip()
    if system and text and text != system:
        raise MalformedError(f"has two system texts, in {shown(column, 40)} and in its first message")
    return text or system


def _exchanges(messages: Sequence[_Message]) -> tuple[tuple[Exchange, ...], str]:
    """The exchanges that are answered, and the last message if it is a question; else an empty text."""
    if not messages:
        raise MalformedError("has only a system text and no question")
    exchanges: list[Exchange] = []
    question = ""
    for i, message in enumerate(messages):
        is_question = i % 2 == 0
        if message.role == SYSTEM:
            raise MalformedError(f"has a system text that is not first ({message.place})")
        if message.role != (USER if is_question else ASSISTANT):
            if i == 0:
                raise MalformedError(f"begins with a message of the assistant ({message.place})")
            raise MalformedError(f"has two messages of the {message.role} in a row ({message.place})")
        if not message.text and (is_question or i < len(messages) - 1):
            raise MalformedError(f"has an empty message of the {message.role} ({message.place})")
        if is_question:
            question = message.text
        elif message.text:  # an empty last answer leaves its question without one
            exchanges.append(Exchange(question, "", message.text))
            question = ""
    return tuple(exchanges), question
