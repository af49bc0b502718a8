"""The values in a `.json` file, which holds a list, or in a `.jsonl` file, which holds one value a line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2cli.data.gzip_files import ending, open_binary
from gpt2cli.data.json_lists import JSONFile, holds_list, open_object
from gpt2cli.data.json_values import DECODER, BadLine
from gpt2cli.data.utf8 import BOM
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_utf16


@dataclass(frozen=True)
class JSONLines:
    """The values of a `.jsonl` file. Iterating gives each with its line, counted from 1, and reads the file again.

    A line that is not JSON gives a BadLine. Blank lines give nothing.
    """

    path: Path
    note = ""

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        with open_binary(self.path) as file:
            # JSON has no CR within a line, so each CR ends one
            lines = (part for line in file for part in line.splitlines())
            for number, line in enumerate(lines, start=1):
                line = line.removeprefix(BOM) if number == 1 else line
                if line.strip():
                    yield number, _value_of(line)


def open_json(path: Path) -> JSONFile | JSONLines:
    """The values of a `.json` or `.jsonl` file.

    A `.json` file can also hold an object with one list beside other members, or with a single conversation.

    Raises DataError, with the place, for a file that is not UTF-8 and for a `.json` file that is not a list in JSON;
    also for a `.jsonl` file that holds one list. The errors in a list are raised while it is iterated.
    """
    with open_binary(path) as file:
        start = file.read(512)
    if not ending(path).startswith(".jsonl"):
        return JSONFile(path) if holds_list(start) else open_object(path)
    if is_utf16(start):
        raise DataError(f"{path} looks like UTF-16: convert it to UTF-8, or give another file")
    if holds_list(start) and _is_one_list(path):
        name = ending(path).replace(".jsonl", ".json")
        raise DataError(f"{path} holds one list, not an object a line: name it {name}")
    return JSONLines(path)


def _is_one_list(path: Path) -> bool:
    try:
        return all(True for _ in JSONFile(path))  # reads it to its end
    except DataError:
        return False


def _value_of(line: bytes) -> Any:
    try:
        return DECODER.decode(str(line, "utf-8"))
    except json.JSONDecodeError as error:
        return BadLine(error.colno, error.msg)
    except UnicodeDecodeError as error:
        return BadLine(None, f"not valid UTF-8 at byte {error.start} of the line")
    except RecursionError:
        return BadLine(None, "nested too deep")
