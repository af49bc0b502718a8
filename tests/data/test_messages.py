"""Records as people have them: each shape gives the right record, or an error that names the record and the key."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2cli.data.records import Record, read_records
from gpt2cli.errors import DataError
from gpt2cli.exchanges import Exchange
from tests.data.records import write_json

U, A = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}
S = {"role": "system", "content": "Be kind."}
HUMAN, GPT = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}
HI_HO = Exchange("Hi?", "", "Ho.")
ONE, TWO = Record("Hi?", "", "Ho."), Record("Hi?", "", "Ho.", (HI_HO,))
KIND = Record("Hi?", "", "Ho.", (), "Be kind.")


def image(kind: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": kind, kind: {"url": "a.png"}}]}


@pytest.mark.parametrize(
    ("value", "record"),
    [
        ({"messages": [U, A]}, ONE),
        ({"messages": [U, A, U, A]}, TWO),
        ({"messages": [S, U, A]}, KIND),
        ({"messages": [S | {"role": "developer"}, U, A]}, KIND),
        ({"messages": [S | {"content": " \n"}, U, A]}, ONE),  # an empty system text
        ({"conversations": [HUMAN, GPT, HUMAN, GPT]}, TWO),
        ({"conversations": [{"from": "user", "value": "Hi?"}, {"from": "chatgpt", "value": "Ho."}]}, ONE),
        ({"conversations": [{"from": "system", "value": "Be kind."}, HUMAN, GPT | {"weight": None}]}, KIND),
        ({"messages": [HUMAN, A]}, ONE),  # both kinds of messages
        ({"Messages": [{"Role": "User", "Content": "Hi?"}, {"ROLE": " Assistant", "CONTENT": "Ho."}]}, ONE),
        ({"messages": [{"role": "user", "content": " Hi?\r\n"}, {"role": "assistant", "content": "\n\nHo. "}]}, ONE),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}, A]}, ONE),
        (
            {"messages": [{"role": "user", "content": ["Hi?", {"type": "input_text", "text": "Ho?"}]}, A]},
            Record("Hi?\nHo?", "", "Ho."),
        ),
        ({"messages": [U, A, U]}, ONE),  # the question is left out
        ({"messages": [U, A, U, A | {"content": " "}]}, ONE),
        ({"messages": [U]}, Record("Hi?", "", "")),
        ({"messages": [U, A | {"content": ""}]}, Record("Hi?", "", "")),
        ({"messages": [U, A | {"tool_calls": [], "function_call": None, "weight": 1, "name": None}]}, ONE),
        ({"messages": [U | {"weight": 0}, A]}, ONE),
        ({"messages": [U, A], "system": None, "images": []}, ONE),
        ({"messages": [U, A], "system": "Be kind."}, KIND),
        ({"messages": [S, U, A], "system_prompt": " Be kind.\n"}, KIND),
        ({"conversations": [HUMAN, GPT], "system": "Be kind.", "prompt": "a", "completion": "b"}, KIND),
        ({"prompt": [S, U], "completion": [A]}, KIND),
        ({"prompt": "Hi?", "completion": [A]}, ONE),
        ({"prompt": "Hi?", "chosen": [U, A], "rejected": [U, A]}, ONE),
        ({"prompt": [U], "chosen": [U, A], "rejected": [U, A]}, ONE),
        ({"prompt": "Hi?", "chosen": "Ho.", "rejected": [1]}, ONE),
        ({"instruction": "Hi?", "input": "<noinput>", "output": "Ho."}, ONE),
        ({"instruction": "Hi?", "input": "<NoInput> ", "output": "Ho."}, ONE),
        ({"instruction": "Hi?", "input": None, "output": "Ho.", "system_prompt": "Be kind. "}, KIND),
        ({"INSTRUCTION": "1", "RESPONSE": "2"}, Record("1", "", "2")),  # numbers as texts
        ({"instruction": "Hi?", "output": ""}, Record("Hi?", "", "")),
        ({"system_prompt": "", "question": "Hi?", "response": "Ho."}, ONE),
    ],
    ids=lambda value: json.dumps(value)[:70] if isinstance(value, dict) else "",
)
def test_shapes_that_are_read(tmp_path: Path, value: dict[str, Any], record: Record) -> None:
    assert read_records(write_json(tmp_path / "a.json", [value])).good == [record]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"messages": [U, A, A]}, "has two messages of the assistant in a row (messages[2])"),
        ({"messages": [U, U, A]}, "has two messages of the user in a row (messages[1])"),
        ({"messages": [A, U]}, "begins with a message of the assistant (messages[0])"),
        ({"conversations": [GPT, HUMAN, GPT]}, "begins with a message of the assistant (conversations[0])"),
        ({"messages": [U, S, A]}, "has a system text that is not first (messages[1])"),
        ({"messages": [S, S, U, A]}, "has a system text that is not first (messages[1])"),
        ({"messages": [S]}, "has only a system text and no question"),
        ({"messages": [U | {"content": " "}, A]}, "has an empty message of the user (messages[0])"),
        ({"messages": [U, A | {"content": ""}, U, A]}, "has an empty message of the assistant (messages[1])"),
        ({"messages": []}, "has no messages in 'messages'"),
        ({"messages": None}, "has null as 'messages', not a list of messages"),
        ({"messages": "Hi?"}, "has a text as 'messages', not a list of messages"),
        ({"messages": [["Hi?", "Ho."]]}, "has a list as messages[0], not a message"),
        ({"messages": [[U, A]]}, "has a list as messages[0], not a message"),
        ({"messages": [U, {"role": "assistant"}]}, "has no 'content' in messages[1]"),
        ({"conversations": [{"from": "human"}]}, "has no 'value' in conversations[0]"),
        ({"messages": [U, {"content": "Ho."}]}, "has no 'role' in messages[1]"),
        ({"messages": [U, A | {"role": None}]}, "has null as the role of messages[1], not a text"),
        (
            {"messages": [U, A | {"role": "narrator"}]},
            "has the role 'narrator' in messages[1], not system, user or assistant",
        ),
        ({"messages": [U, A | {"content": None}]}, "has null as messages[1].content, not a text"),
        ({"messages": [U, A | {"content": 42}]}, "has a number as messages[1].content, not a text"),
        ({"messages": [U, A | {"content": float("nan")}]}, "has NaN as messages[1].content, not a text"),
        ({"messages": [U, A | {"content": "\ud800"}]}, "has half a surrogate pair in messages[1].content"),
        ({"conversations": [HUMAN, GPT | {"value": None}]}, "has null as conversations[1].value, not a text"),
        (
            {"messages": [U, A | {"tool_calls": [{"id": "1"}]}]},
            "has a tool call ('tool_calls' in messages[1]), and tools",
        ),
        ({"messages": [U, A | {"function_call": {"name": "f"}}]}, "has a tool call ('function_call' in messages[1])"),
        ({"messages": [U, {"role": "tool", "content": "3"}]}, "has a message of a tool (messages[1] is of 'tool')"),
        (
            {"conversations": [HUMAN, {"from": "observation", "value": "3"}]},
            "has a message of a tool (conversations[1] is of",
        ),
        ({"messages": [U, A | {"weight": 0}]}, "has the weight 0 in messages[1], and all answers are learned alike"),
        (
            {"messages": [image("image_url"), A]},
            "has 'image_url' as messages[0].content[1], and only texts can be learned",
        ),
        ({"messages": [image("input_audio"), A]}, "has 'input_audio' as messages[0].content[1]"),
        ({"messages": [U, A | {"content": [{"type": "text"}]}]}, "has no 'text' in messages[1].content[0]"),
        ({"messages": [U, A], "images": ["a.png"]}, "has 'images' beside its messages, and only texts can be learned"),
        ({"image": "a.png", "conversations": [HUMAN, GPT]}, "has 'image' beside its messages"),
        ({"messages": [S, U, A], "system": "Be rude."}, "has two system texts, in 'system' and in its first message"),
        ({"messages": [U, A], "system": 3}, "has a number as 'system', not a text"),
        ({"instruction": "Hi?", "output": "Ho.", "system": ["x"]}, "has a list as 'system', not a text"),
        (
            {"prompt": "Who?", "chosen": [U, A], "rejected": []},
            "has 'chosen' that neither continues nor repeats 'prompt'",
        ),
        ({"prompt": 3, "completion": [A]}, "has a number as 'prompt', not a text"),
    ],
    ids=lambda value: json.dumps(value)[:70] if isinstance(value, dict) else "",
)
def test_shapes_that_are_refused_by_record_and_key(tmp_path: Path, value: dict[str, Any], told: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"\n{json.dumps(value)}\n")
    with pytest.raises(DataError) as error:
        read_records(path)
    assert f"{path}: record 1 (line 2) {told}" in str(error.value)
    assert str(error.value).endswith(": mend it, or use --skip-bad")
    with pytest.raises(DataError, match="no records but 1 bad ones"):
        read_records(path, skip_bad=True)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ('{"instruction": "Hi?", "output": "Ho.", "output": "He."}', "has several different values of 'output'"),
        (
            '{"messages": [{"role": "user", "content": "Hi?", "role": "assistant"}]}',
            r"has several different values of 'role' in messages\[0\]",
        ),
        (
            '{"messages": [], "messages": [{"role": "user", "content": "Hi?"}]}',
            "several different values of 'messages'",
        ),
    ],
)
def test_a_key_with_several_values_is_refused(tmp_path: Path, record: str, told: str) -> None:
    (tmp_path / "a.jsonl").write_text(record)
    with pytest.raises(DataError, match=rf"record 1 \(line 1\) .*{told}: mend it"):
        read_records(tmp_path / "a.jsonl")


def test_a_key_that_is_repeated_without_a_difference_or_not_used_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "id": 2, "instruction": "Hi?", "output": "Ho.", "output": "Ho."}')
    assert read_records(tmp_path / "a.jsonl").good == [ONE]


def test_a_last_question_is_left_out_and_told_or_is_the_question(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [{"messages": messages} for messages in ([U, A, U], [U, A], [S, U])])
    for output in ("needed", "optional"):
        found = read_records(path, output=output)
        assert found.good == [ONE, ONE, Record("Hi?", "", "", (), "Be kind.")]
        assert found.notes[1] == "1 conversation ends with a question, which is left out"
    found = read_records(path, output="unused")
    unanswered = Record("Hi?", "", "")
    assert found.good == [Record("Hi?", "", "", (HI_HO,)), unanswered, Record("Hi?", "", "", (), "Be kind.")]
    assert [*found.notes] == ["3 conversations, 4 turns, OpenAI's messages"]


def test_what_is_not_used_is_told(tmp_path: Path) -> None:
    values = [
        {"messages": [U | {"name": "Ann"}, A | {"name": ""}], "id": 7},
        {"messages": [U, A | {"reasoning_content": "Hm."}]},
        {"messages": [HUMAN, GPT], "id": None},
    ]
    found = read_records(write_json(tmp_path / "a.json", values))
    assert found.notes == (
        "3 conversations, 3 turns, OpenAI's messages and ShareGPT's conversations",
        "2 of 3 records have other fields, which are not used (such as 'messages.name', 'messages.reasoning_content')",
    )
    values = [{"instruction": "Hi?", "input": "<noinput>", "output": "Ho."}] * 2
    assert read_records(write_json(tmp_path / "a.json", values)).notes == (
        "2 records have <noinput> as input, which is read as no input",
    )
