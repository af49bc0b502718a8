"""The values of a data file of any format, which become records or answers."""

from collections.abc import Collection
from pathlib import Path

from gpt2cli.data.csv_values import Table, open_table
from gpt2cli.data.gzip_files import ENDING, ending
from gpt2cli.data.json_files import JSONLines, open_json
from gpt2cli.data.json_lists import JSONFile

TABLES, JSONS = (".csv", ".tsv"), (".json", ".jsonl")
SUFFIXES = tuple(suffix + packed for packed in ("", ENDING) for suffix in (*TABLES, *JSONS))
"""The endings of the names of all files that are read."""
FORMATS = f"{', '.join((*TABLES, *JSONS)[:-1])} or {JSONS[-1]} file (also packed, as .csv.gz)"
"""The same in words, for messages: give a ..."""

Values = Table | JSONFile | JSONLines


def is_data_file(path: Path) -> bool:
    """Whether a file's name has one of SUFFIXES, in upper or lower case."""
    return ending(path) in SUFFIXES


def read_values(path: Path, likely: Collection[str] = ()) -> Values:
    """Each value of a file, with the number of its line, counted from 1, or None for a `.json` file.

    The values can be iterated again. A row of a table gives an object, and a malformed value a BadLine. `likely` are
    names of columns, in lower case, that help to determine the dialect of a table.

    Raises DataError as `open_table` and `open_json`.
    """
    return open_table(path, likely) if ending(path).startswith(TABLES) else open_json(path)
