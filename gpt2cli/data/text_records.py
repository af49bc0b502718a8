"""Records of plain text: each holds one document."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2cli.counted import counted
from gpt2cli.data.columns import names_in
from gpt2cli.data.data_file import open_data_file, text_in
from gpt2cli.data.forms import LIKELY, has_answers
from gpt2cli.data.values import read_values
from gpt2cli.errors import DataError, UsageError


@dataclass(frozen=True)
class TextRecords:
    r"""The documents of a file, in its order, without the blank ones. A `\r\n` in them is a `\n`.

    bad    the number of malformed records, which were skipped
    notes  remarks for the person who gave the file
    """

    texts: list[str]
    bad: int
    notes: tuple[str, ...]


def is_plain_text(path: Path, columns: Mapping[str, str] | None = None) -> bool:
    """Whether a file of records holds plain text, by the names of its columns. `columns` is as for `read_records`.

    False for a file that cannot be read, or that has no known columns: `read_records` raises its error. Raises
    UsageError for a file without the given `columns`.
    """
    try:
        if not columns and has_answers(names_in((value for _, value in islice(read_values(path), 1)), LIKELY)):
            return False  # other records cannot change that
        return open_data_file(path, columns, needs_output=False).columns.text is not None
    except DataError:
        return False


def read_text_records(path: Path, skip_bad: bool = False, columns: Mapping[str, str] | None = None) -> TextRecords:
    """The documents of a file whose records are plain text (see `is_plain_text`).

    Raises the errors of `read_records`, and DataError for a file without any text.
    """
    file = open_data_file(path, columns, needs_output=False)
    column = file.columns.text
    if column is None:
        raise UsageError(f"{path} holds {file.columns.kind}, not plain text: leave out what asks for plain text")

    def text_of(value: dict[str, Any]) -> str:
        return text_in(value, column).replace("\r\n", "\n")

    parsed = file.read(text_of, skip_bad)
    texts = [text for text in parsed.good if text and not text.isspace()]
    if not texts:
        raise DataError(f"{path}: there is no text to learn from: give another file")
    blank = len(parsed.good) - len(texts)
    left_out = f"{blank:,} of {len(parsed.good):,} documents are blank, and are left out" if blank else ""
    skipped = f"skipped {counted(parsed.bad, 'malformed record')}" if parsed.bad else ""
    about = "; ".join(
        filter(None, (counted(len(texts), "document") + " of plain text", file.columns.note(), file.values.note))
    )
    return TextRecords(texts, parsed.bad, tuple(filter(None, (about, left_out, skipped))))
