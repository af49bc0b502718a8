"""Answers by other programs: read from a file, and matched with the records that they answer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2cli.counted import counted
from gpt2cli.data.columns import OWN_NAMES, Columns
from gpt2cli.data.data_file import MalformedError
from gpt2cli.data.encoding import encode_many
from gpt2cli.data.json_values import NAN, BadLine, kind_of
from gpt2cli.data.messages import read_conversation
from gpt2cli.data.records import Record
from gpt2cli.data.values import read_values
from gpt2cli.errors import DataError
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.evaluation_data import Instructions
from gpt2cli.evaluation.inputs import check_answers_file
from gpt2cli.untrusted import is_encodable, shown

FIELDS = ("model_response", "response", "answer", "prediction", "completion", "output")
"""The fields of an object that can hold the answer. The first one that exists is used."""


@dataclass(frozen=True)
class Given:
    """Answers by the index of their task, and the name of their file."""

    name: str
    answers: dict[int, Answer]


def read_given(name: str, path: Path, data: Instructions) -> Given:
    """Read a file with an answer for each record of the data, in the order of the records.

    An answer is a text, or an object with the text in one of FIELDS, or a conversation that ends with it. If the object
    has an `instruction` or an `input`, or a last question, they must be those of the record, or of its last exchange.
    The file may also have answers to the records without an output; these are not used.

    Raises UsageError for a file of another kind, and DataError, with the first wrong answer, for wrong content.
    """
    check_answers_file(name, path)
    read = [*read_values(path, FIELDS)]
    places = _places(name, len(read), data)
    texts = [
        _text_of(f"{name}: answer {place + 1}" + (f" (line {line})" if line else ""), value, task.record, data.source)
        for task, place in zip(data.tasks, places, strict=True)
        for line, value in [read[place]]
    ]
    lengths = map(len, encode_many(texts))
    answers = [Answer(text, length, "") for text, length in zip(texts, lengths, strict=True)]
    return Given(name, dict(enumerate(answers)))


def _places(name: str, count: int, data: Instructions) -> Sequence[int]:
    """The index in the file of the answer to each task."""
    if count == len(data.tasks):
        return range(count)
    if data.places is not None and count == data.of:
        return data.places
    split = "" if data.split == "all" else f" (its {data.split} split)"
    tasks = counted(len(data.tasks), data.noun) + (" with an output" if data.has_references else "")
    raise DataError(
        f"{name} and {data.source}{split} differ in length ({counted(count, 'answer')}, {tasks}): "
        f"give one answer for each {data.noun}, in the same order"
    )


def _last_exchange(where: str, value: dict[str, Any]) -> dict[str, Any]:
    """The last question of a conversation and its answer, as a record; any other object unchanged."""
    messages = next((name for name in OWN_NAMES["messages"] if isinstance(value.get(name), list)), None)
    if messages is None:
        return value
    try:
        found = read_conversation(value, Columns(messages=messages))
    except MalformedError as error:
        raise DataError(f"{where} {error}: mend it") from None
    if found.question or not found.exchanges:
        raise DataError(f"{where} ends with a question: give a conversation that ends with an answer")
    return asdict(found.exchanges[-1])


def _text_of(where: str, value: Any, record: Record, source: str) -> str:
    if isinstance(value, BadLine):
        raise DataError(f"{where} is bad {value.form} ({value.reason}): mend it")
    field = ""
    if isinstance(value, dict) and not any(name in value for name in FIELDS):
        value = _last_exchange(where, value)
    if isinstance(value, dict):
        for asked, ours in (("instruction", record.instruction), ("input", record.input)):
            theirs = value.get(asked, ours)
            theirs = "" if theirs is None or theirs == NAN else theirs
            if not isinstance(theirs, str) or theirs.strip() != ours.strip():
                found = shown(theirs) if isinstance(theirs, str) else kind_of(theirs)
                raise DataError(
                    f"{where} has the {asked} {found}, and the record of {source} has {shown(ours)}: "
                    "give the answers in the order of the records"
                )
        field = next((name for name in FIELDS if name in value), "")
        if not field:
            raise DataError(f"{where} has none of {', '.join(FIELDS)}: give the answer one of these names")
        value = value[field]
    if not isinstance(value, str) or not is_encodable(value):
        found = kind_of(value) if not isinstance(value, str) else "half a surrogate pair"
        raise DataError(f"{where} is {found}{f' as {field!r}' if field else ''}, not a text: mend it")
    return value.strip()
