"""The rows of a `.csv` or `.tsv` file, whose first line names the columns.

`csv.Sniffer` is not used: it fails on texts with many different characters. Here the separator is the one that divides
the header into known names, or into the most columns, and the next rows into equally many.
"""

import csv
import io
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

from gpt2cli.checkpoints.headers import looks_like
from gpt2cli.data.gzip_files import ending, open_binary
from gpt2cli.data.json_values import BadLine
from gpt2cli.data.utf8 import BOM
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_encodable, is_utf16, shown, shown_reason

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAMPLE_BYTES, SAMPLE_ROWS = 2**16, 20
"""The part of a file from which its dialect is determined."""
LONGEST_FIELD = 2**27
"""The largest number of characters in one field. Python's own limit is 131,072."""
SAVE_AS = "save it as UTF-8 (in Excel: CSV UTF-8)"
_SEPARATOR_LINE = re.compile(r"sep=(.)(?:\r\n|\r|\n)")
_MARKUP = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
_LIMIT = threading.Lock()


class _Dialect(csv.Dialect):
    """How the fields of a file are written. A quote within quotes is written twice."""

    delimiter, quotechar, lineterminator = ",", '"', "\n"
    quoting, doublequote, strict = csv.QUOTE_MINIMAL, True, True

    def __init__(self, separator: str, quote: str, blank_after_separator: bool) -> None:
        self.delimiter, self.quotechar, self.skipinitialspace = separator, quote, blank_after_separator
        super().__init__()


@dataclass(frozen=True)
class Table:
    """A file of rows. Iterating gives each row as a dict, with the number of the line on which it begins.

    A row that is malformed gives a BadLine. Blank lines give nothing, and neither do rows of empty fields, which Excel
    adds. Iterating again reads the file again.

    names    the columns with a name, in the order of the file
    """

    path: Path
    dialect: _Dialect
    header: list[str]
    names: list[str]

    @property
    def note(self) -> str:
        """The dialect in words."""
        return f"{SEPARATORS[self.dialect.delimiter]} separate the columns"

    def __iter__(self) -> Iterator[tuple[int, dict[str, str] | BadLine]]:
        with _open_text(self.path) as file:
            rows = _rows(file, self.dialect, str(self.path))
            next(rows, None)  # the header
            for line, row in rows:
                yield line, row if isinstance(row, BadLine) else self._value(row)

    def _value(self, row: list[str]) -> dict[str, str] | BadLine:
        if any(row[len(self.header) :]):
            separators = SEPARATORS[self.dialect.delimiter]
            counts = f"{len(row)} fields for {len(self.header)} columns"
            return _bad_row(f"{counts}; texts with {separators} need quotes around them")
        if not is_encodable("".join(row)):
            return _bad_row(f"not valid UTF-8; {SAVE_AS}")
        return {name: text for name, text in zip(self.header, row, strict=False) if name}


def _bad_row(reason: str) -> BadLine:
    return BadLine(None, reason, "CSV")


def open_table(path: Path, likely: Collection[str] = ()) -> Table:
    """Determine the dialect and the columns of a file.

    likely  names of columns, in lower case, that decide between two possible dialects

    Raises DataError for a file that is not UTF-8, or that does not begin with different names.
    """
    with open_binary(path) as file:
        start = file.read(SAMPLE_BYTES)
    content = start.removeprefix(BOM)
    if is_utf16(start):
        raise DataError(f"{path} looks like UTF-16: {SAVE_AS}")
    if b"\0" in content or not content.strip() or _MARKUP.match(content):
        raise DataError(f"{path} is not a table (looks like {looks_like(content)}): give another file")
    dialect = _dialect_of(path, content, likely)
    with _open_text(path) as text:
        _, header = next(_rows(text, dialect, str(path)), (1, list[str]()))
    if isinstance(header, BadLine):
        raise DataError(f"{path}: bad header ({header.reason}): mend the first line, which names the columns")
    if not is_encodable("".join(header)):
        raise DataError(f"{path} is not valid UTF-8 in its first line: {SAVE_AS}")
    header = [name.strip() for name in header]
    names = [name for name in header if name]
    if len({*names}) < len(names):
        repeated, _ = Counter(names).most_common(1)[0]
        raise DataError(f"{path} has more than one column {shown(repeated)}: rename one of them in the first line")
    return Table(path, dialect, header, names)


def _open_text(path: Path) -> TextIO:
    """The text of a file. Bytes that are not UTF-8 become characters that cannot be encoded."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _rows(file: TextIO, dialect: _Dialect, where: str) -> Iterator[tuple[int, list[str] | BadLine]]:
    """The number of the first line of each row, counted from 1, and its fields.

    Raises DataError if a quote is not closed: then the rest of the file is one field, so this is no error of one row.
    """
    reader = csv.reader(_without_separator_line(file), dialect)
    while True:
        line = reader.line_num + 1
        try:
            row = _next_row(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "limit" in str(error):
                quote = dialect.quotechar
                raise DataError(
                    f"{where}: the quote {quote} that opens in the record at line {line} is not closed: "
                    f"close it, and write {quote * 2} for a quote in a text"
                ) from None
            end = f" in line {reader.line_num}" if reader.line_num > line else ""
            quotes = f"text after a closing quote{end}; write {dialect.quotechar * 2} for a quote in a text"
            yield line, _bad_row(quotes if "expected after" in str(error) else shown_reason(error))
            continue
        if any(row) or len(row) == 1:  # in a table of one column, an empty field can be an empty answer
            yield line, row


def _next_row(reader: Iterator[list[str]]) -> list[str]:
    """The next row. The limit of the csv module holds for the whole process: it is raised only for this moment."""
    with _LIMIT:
        before = csv.field_size_limit(LONGEST_FIELD)
        try:
            return next(reader)
        finally:
            csv.field_size_limit(before)


def _without_separator_line(lines: TextIO) -> Iterator[str]:
    """The lines, in which a first line such as `sep=;`, which is meant for Excel, is blank."""
    for number, line in enumerate(lines, start=1):
        yield "\n" if number == 1 and _SEPARATOR_LINE.fullmatch(line) else line


def _dialect_of(path: Path, start: bytes, likely: Collection[str]) -> _Dialect:
    text = str(start, "utf-8", "surrogateescape")
    told = _SEPARATOR_LINE.match(text)
    text = text[told.end() :] if told else text
    quote = "'" if text.startswith("'") else '"'
    candidates = sorted(SEPARATORS, key=lambda each: each != "\t") if ending(path).startswith(".tsv") else SEPARATORS
    allowed = [told[1]] if told and told[1] in SEPARATORS else candidates
    separator = max(allowed, key=lambda each: _fit(text, each, quote, likely))
    header = _sample(text, separator, quote)[:1] or [[]]
    return _Dialect(separator, quote, len(header[0]) > 1 and all(name.startswith(" ") for name in header[0][1:]))


def _fit(text: str, separator: str, quote: str, likely: Collection[str]) -> tuple[bool, int, int, int]:
    """How well a separator fits: a larger value fits better."""
    rows = _sample(text, separator, quote) or [[]]
    names = [name.strip().casefold() for name in rows[0]]
    return (
        len(names) > 1,
        sum(name in likely for name in names),
        sum(len(row) == len(names) for row in rows),
        len(names),
    )


def _sample(text: str, separator: str, quote: str) -> list[list[str]]:
    """The first rows with a field, read without strictness; the last one can be cut."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote)
    try:
        return [row for row in islice(rows, SAMPLE_ROWS) if row]
    except csv.Error:
        return []
