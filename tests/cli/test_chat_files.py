"""What /save writes in each format, and what it refuses."""

import json

import pytest

from gpt2cli.cli.chat_files import as_records, as_text, check_format, split_format
from gpt2cli.errors import UsageError
from gpt2cli.exchanges import Exchange

EXCHANGES = [Exchange("Add.", "1, 2", "3"), Exchange("Be silent."), Exchange("Why?", "", "It is so.")]


def test_the_words_of_each_format() -> None:
    assert json.loads(as_records(EXCHANGES, "", ".json")) == [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Be silent.", "input": "", "output": ""},
        {"instruction": "Why?", "input": "", "output": "It is so."},
    ]
    lines = as_records(EXCHANGES, "Be kind.", ".jsonl", "prompt").splitlines()
    assert json.loads(lines[0]) == {"system": "Be kind.", "prompt": "Add.\n\n1, 2", "completion": "3"}
    [conversation] = json.loads(as_records(EXCHANGES, "Be kind.", ".json", "messages"))
    assert conversation == {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Add.\n\n1, 2"},
            {"role": "assistant", "content": "3"},
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "It is so."},
        ]
    }
    assert json.loads(as_records(EXCHANGES[2:], "", ".jsonl", "sharegpt")) == {
        "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "It is so."}]
    }
    assert as_records(EXCHANGES[:1], "", ".csv") == 'instruction,input,output\nAdd.,"1, 2",3\n'
    assert as_records(EXCHANGES[:1], "A", ".tsv", "prompt") == 'system\tprompt\tcompletion\nA\t"Add.\n\n1, 2"\t3\n'
    assert as_text(EXCHANGES[::2]) == "> Add.\n> \n> 1, 2\n\n3\n\n> Why?\n\nIt is so.\n"


@pytest.mark.parametrize("system", ["", "Be kind."])
def test_a_conversation_without_an_answer_is_refused(system: str) -> None:
    with pytest.raises(UsageError, match="nothing to save as messages"):
        as_records([Exchange("Be silent.")], system, ".json", "messages")


@pytest.mark.parametrize(
    ("argument", "file", "format"),
    [
        ("a.json", "a.json", None),
        ("my chat.json", "my chat.json", None),
        ("my chat.json  messages", "my chat.json", "messages"),
        ("messages", "messages", None),
        ("a.json mesages", "a.json mesages", None),
    ],
)
def test_the_format_is_the_last_word(argument: str, file: str, format: str | None) -> None:
    assert split_format(argument) == (file, format)


@pytest.mark.parametrize(
    ("file", "format", "is_text", "says"),
    [
        ("a.json mesages", None, False, "there is no format mesages: did you mean messages"),
        ("a.JSONL x", None, False, "there is no format x: use instructions, prompt, messages, sharegpt"),
        ("a.csv", "messages", False, "a .csv file has no messages"),
        ("a.tsv", "sharegpt", False, "a .tsv file has no sharegpt"),
        ("a.md", "prompt", False, "a text has no format prompt: leave it out, or write a .jsonl"),
        ("a", "prompt", True, "a text has no format prompt: leave it out"),
        ("a.jsonl", None, True, r"does not write .jsonl: choose a name that ends in .txt \(text\), .md \(text\)"),
        ("a.html", None, False, r"does not write .html: .*\.tsv \(records\)"),
    ],
)
def test_what_is_not_written(file: str, format: str | None, is_text: bool, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_format(file, format, is_text)
