"""Reading of untrusted files, texts and names, and their display in error messages."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

SHOWN_LENGTH = 80
"""The largest number of characters of an untrusted value in an error message."""
LONGEST_REASON = 200
"""The largest number of characters of an exception's text in an error message."""
LONGEST_LINE = 2**20
"""The largest number of bytes in a line that `whole_lines` yields."""

_ORDINARY = re.compile(r"[A-Za-z0-9_.-]+")


def shown(value: Any, length: int = SHOWN_LENGTH) -> str:
    """An untrusted value for an error message: short and on one line. Takes bounded time.

    Shows texts and numbers as Python writes them, cut after `length` characters. Shows only the type of other values,
    because the repr of a container can be exponentially longer than the file that it came from.
    """
    if isinstance(value, str):
        return repr(value if len(value) <= length else value[:length] + "...")
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**length else f"a number of more than {length} digits"
    return f"a value of type {type(value).__name__}"


def shown_name(name: str) -> str:
    """An untrusted name for an error message: unchanged if it is short and has only ordinary characters."""
    return name if len(name) <= SHOWN_LENGTH and _ORDINARY.fullmatch(name) else shown(name)


def shown_reason(error: BaseException) -> str:
    """The text of a library's exception about an untrusted file, for an error message: short and on one line."""
    start = str(error)[: LONGEST_REASON + 1]
    text = "".join(character if character.isprintable() else " " for character in start) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."


def read_at_most(path: Path, limit: int) -> bytes | None:
    """The content of a file, or None if it has more than `limit` bytes. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None


def parse_json(
    text: str | bytes,
    make_object: Callable[[list[tuple[str, Any]]], Any] | None = None,
    make_constant: Callable[[str], Any] | None = None,
) -> Any:
    """The value of a JSON text. Raises ValueError, with the place in plain words, for every invalid text.

    `json.loads` also raises RecursionError, for a deeply nested text. `make_object` is its `object_pairs_hook`, and
    `make_constant` its `parse_constant`, for NaN and Infinity.
    """
    import json

    try:
        return json.loads(text, object_pairs_hook=make_object, parse_constant=make_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError as error:
        encoding = error.encoding.upper()[: len("UTF-16")].rstrip("-")
        raise ValueError(f"not {encoding} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:  # of the arguments, or of Python about a number
        raise ValueError("a number of too many digits" if "int_max_str" in str(error) else str(error)) from None


def repeated_name(pairs: list[tuple[str, Any]]) -> str | None:
    """The first name of a JSON object that occurred before in it, for `make_object` of `parse_json`; None without."""
    seen = set[str]()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return None


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields the lines of a file of any size, with their line ends.

    Leaves out lines of more than LONGEST_LINE bytes, and a last line without an end.
    """
    is_start = True
    while part := file.readline(LONGEST_LINE):
        is_end = part.endswith(b"\n")
        if is_start and is_end:
            yield part
        is_start = is_end


def is_utf16(content: bytes) -> bool:
    """Whether bytes look like a text in UTF-16, as Windows programs write it.

    Without a byte order mark, this is a guess: in a European language, every other byte of such a text is 0.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    start = content[:512]
    zeros = sorted((start[::2].count(0), start[1::2].count(0)))
    return len(start) >= 4 and zeros[0] == 0 and zeros[1] > len(start) // 4


def is_name(value: Any) -> bool:
    """Whether a value can be a model's name: a text on one line, with parts that are short enough for file names."""
    return isinstance(value, str) and value.isprintable() and all(len(part.encode()) < 256 for part in value.split("/"))


def is_encodable(text: str) -> bool:
    """Whether a text can be encoded in UTF-8. A text from JSON can contain half a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_file(path: Path) -> bool:
    """Whether an ordinary file exists. False also for an impossible name, and if permissions hide the answer."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def missing(path: Path) -> str:
    """Why `is_file` is false for a path, in words for an error message."""
    return "not an ordinary file" if os.path.lexists(path) else "not there"


def is_directory(path: Path) -> bool:
    """Whether a directory exists. False also for an impossible name, and if permissions hide the answer."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
