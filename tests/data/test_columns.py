"""The columns of a record: found by their names, or named by the user."""

from collections.abc import Sequence

import pytest

from gpt2cli.data.columns import (
    ALPACA_COLUMNS,
    NAMED,
    Columns,
    Names,
    columns_text,
    names_in,
    parse_columns,
)
from gpt2cli.data.forms import FORMS, LIKELY, PREFERENCES, find_columns
from gpt2cli.errors import DataError, UsageError


def found(names: list[str], asked: str | None = None, lists: Sequence[str] = (), is_table: bool = False) -> Columns:
    held = Names(names, lists, is_table)
    return find_columns("a.csv", held, None if asked is None else parse_columns(asked))


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["instruction", "output"], ALPACA_COLUMNS),
        (["instruction", "input", "output", "question", "answer", "context"], ALPACA_COLUMNS),
        (["Instruction", "Input", "OUTPUT "], Columns("Instruction", "OUTPUT ", "Input")),
        (["instruction", "context", "response", "category"], Columns("instruction", "response", "context")),
        (["instruction", "response", "context", "input"], Columns("instruction", "response", "input")),
        (["question", "answer"], Columns("question", "answer", None)),
        (["id", "Question", "Answer", "Topic"], Columns("Question", "Answer", None)),
        (["question", "answer", "messages"], Columns("question", "answer", None)),  # no list is in `messages`
        (["prompt", "completion"], Columns("prompt", "completion", None)),
        (["prompt", "response", "input"], Columns("prompt", "response", "input")),
        (["input", "output", "context"], Columns("input", "output", "context")),
        (["system_prompt", "question", "response"], Columns("question", "response", system="system_prompt")),
        (["chosen", "rejected", "Question"], Columns("Question", "chosen")),
        (["chosen", "rejected", "prompt", "output", "context"], Columns("prompt", "chosen", "context")),
        (["chosen", "instruction", "output"], ALPACA_COLUMNS),
        (["text", "label", "system"], Columns(text="text")),
        (["messages"], Columns(messages="messages")),  # malformed too
        # malformed in each record, whose error says more than one about the whole file
        (["instruction"], ALPACA_COLUMNS),
        ([], ALPACA_COLUMNS),
    ],
)
def test_known_names_are_found(names: list[str], columns: Columns) -> None:
    assert found(names) == columns


@pytest.mark.parametrize(
    ("names", "lists", "columns"),
    [
        (
            ["conversations", "messages", "question", "answer"],
            ["messages", "conversations"],
            Columns(messages="messages"),
        ),
        (["question", "answer", "conversations"], ["conversations"], Columns(messages="conversations")),
        (["prompt", "completion"], ["prompt", "completion"], Columns("prompt", messages="completion")),
        (["prompt", "chosen", "rejected", "messages"], ["chosen", "messages"], Columns("prompt", messages="chosen")),
        (["chosen", "rejected", "system"], ["chosen", "rejected"], Columns(messages="chosen", system="system")),
        (["messages", "system_prompt"], ["messages"], Columns(messages="messages", system="system_prompt")),
    ],
)
def test_lists_of_messages_are_found(names: list[str], lists: list[str], columns: Columns) -> None:
    assert found(names, lists=lists) == columns
    assert found([name.upper() for name in names], lists=[name.upper() for name in lists]) == Columns(
        **{field: column.upper() for field, column in columns.as_dict().items()}
    )


def test_questions_alone_are_found_where_outputs_are_not_needed() -> None:
    for names, columns in (
        (Names(["question", "id"]), Columns("question")),
        (Names(["prompt"], ["prompt"]), Columns(messages="prompt")),
        (Names(["text", "question"]), Columns(text="text")),
    ):
        assert find_columns("a.json", names, None, needs_output=False) == columns


def test_a_table_holds_no_conversations() -> None:
    assert found(["messages", "question", "answer"], is_table=True) == Columns("question", "answer")
    with pytest.raises(DataError, match=r"'conversations', but a table cannot hold conversations: give them as \.json"):
        found(["id", "conversations"], is_table=True)
    with pytest.raises(UsageError, match="names 'dialog', but a table cannot hold conversations"):
        found(["dialog"], "messages=dialog", is_table=True)


def test_every_form_is_found_and_told() -> None:
    for form in PREFERENCES:
        assert found(["output", "rejected", form.output, form.instruction]) == Columns(form.instruction, "chosen")
    for form in FORMS:
        for inputs in ((), *((name,) for name in form.inputs)):
            columns = found(["x", *inputs, form.output, form.instruction])
            assert (columns.instruction, columns.output) == form[:2]
            assert columns == ALPACA_COLUMNS or columns.input == (inputs[0] if inputs else None)
    assert found(["question", "answer"]).note() == "takes question as instruction, answer as output"
    assert ALPACA_COLUMNS.note() == Columns(messages="conversations", system="system_prompt").note() == ""
    assert found(["frage\x1b[31m", "b"], "instruction=frage\x1b[31m,output=b").note().isprintable()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["frage", "antwort"],
            "'frage', 'antwort', and none of .*: name them, as in --columns instruction=frage,output=an",
        ),
        (["id", "Die Frage", "b"], '--columns "instruction=Die Frage,output=b"$'),
        (["instruction", "antwort"], "as in --columns output=antwort$"),
        (["prompt", "answer"], "as in --columns instruction=prompt,output=answer$"),
        (["input", "target"], "as in --columns instruction=input,output=target$"),
        (["instruction", "input", "target"], "as in --columns output=target$"),
        (["$(reboot)", "`ls`"], "as in --columns instruction=COLUMN,output=COLUMN$"),
        (["id"], "the column 'id', and none of .*: give each record an instruction and an output"),
        (["$x", "id"], "name them, as in --columns text=COLUMN$"),
        (["content"], "the column 'content', and none of .*: name them, as in --columns text=content"),
        (["chosen", "rejected", "id"], "has 'chosen' and 'rejected', but no prompt: add one to each record"),
        ([f"{i}\n" * 500 for i in range(20)], r"\.\.\., and none of"),
    ],
)
def test_unknown_names_are_listed_with_the_option_to_try(names: list[str], told: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        found(names)
    assert str(error.value).startswith("a.csv ") and str(error.value).isprintable() and len(str(error.value)) < 800


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ("instruction=frage,output=antwort", Columns("frage", "antwort", None)),
        (" output = antwort, instruction = Frage", Columns("frage", "antwort", None)),
        ("output=output", Columns("instruction", "output", "input")),
        ("input=frage", Columns("instruction", "output", "frage")),
        ("instruction=input,output=a=b", Columns("input", "a=b", None)),
        ("instruction=one, two,output=antwort,input=frage", Columns("one, two", "antwort", "frage")),
        ("text=frage", Columns(text="frage")),
        ("messages=frage", Columns(messages="frage")),
        ("system=antwort,messages=frage", Columns(messages="frage", system="antwort")),
        ("system=Frage", Columns("question", "answer", system="frage")),
        ("instruction=frage,output=antwort,system=a=b", Columns("frage", "antwort", system="a=b")),
    ],
)
def test_named_columns_are_taken(asked: str, columns: Columns) -> None:
    names = ["frage", "antwort", "a=b", "one, two", "question", "answer"]
    own = [name for name in ("instruction", "output", "input") if name in columns.as_dict().values()]
    assert found([*names, *own], asked) == columns


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("instruction=fragen,output=antwort", "a.csv has no column 'fragen': --columns can name 'frage', 'antwort'"),
        ("instruction=frage", "a.csv has no column 'output': add output=COLUMN to --columns"),
        ("instruction=frage,output=antwort,input=x", "has no column 'x'"),
        ("frage=instruction,antwort=output", "write FIELD=COLUMN, as in instruction=question,output=answer"),
        ("frage,antwort", "write FIELD=COLUMN"),
        ("", "write FIELD=COLUMN"),
        ("instruction=", "cannot take '' as 'instruction'"),
        ("instruction=a,output=a", "takes 'a' twice"),
        ("instruction=a,instruction=b", "names instruction twice"),
        ("instruction=\udcff", "cannot take"),
        ("instruction=frage,output=Frage", "has no column 'Frage'"),
        ("output=instruction", "has no column 'instruction'"),
        ("text=a,output=b", "takes text, which goes without output: leave one of them out"),
        ("messages=a,text=b", "takes text, which goes without messages"),
        ("messages=a,instruction=b", "takes messages, which goes without instruction"),
        ("text=c", "has no column 'c'"),
        ("messages=c", "has no column 'c'"),
        ("instruction=frage,output=antwort,system=c", "has no column 'c'"),
        ("instruction=frage,output=antwort,system=Frage", "has no column 'Frage'"),
    ],
)
def test_what_cannot_be_taken(asked: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        found(["frage", "antwort"], asked)


def test_the_text_of_columns_is_read_back() -> None:
    columns = parse_columns("output=b, c,instruction=a=1")
    assert columns_text(columns) == "instruction=a=1,output=b, c"
    assert parse_columns(columns_text(columns) or "") == columns
    assert columns_text(None) is None


@pytest.mark.parametrize("field", ["instruction", " output "])
def test_a_field_without_a_column_is_told_so(field: str) -> None:
    with pytest.raises(UsageError, match=rf"^--columns {field.strip()} names no column: write FIELD=COLUMN, as in"):
        parse_columns(field)


def test_the_names_of_all_values_count_and_the_first_value_that_is_not_null_is_a_list_or_not() -> None:
    values = ({"a": None, "question": 1}, 7, {"b": [], "c": ["x"]}, {"a": [{"role": "user"}], "question": [{}]})
    assert names_in(values, LIKELY) == Names(["a", "question", "b", "c"], ["b", "a"])


def test_of_a_million_names_only_those_that_matter_are_kept() -> None:
    many = ({f"{i}": i} for i in range(1000))
    names = names_in([*many, {"Prompt": 1}, {"ANTWORT": 2}], LIKELY | {"antwort"}).names
    assert len(names) == NAMED + 3 and names[-2:] == ["Prompt", "ANTWORT"]
    assert all(name == name.casefold() for name in LIKELY)
