"""Untrusted values, texts and names: how they are read, and how an error message shows them."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

SHOWN_LENGTH = 80
"""Characters of an untrusted value that an error message shows at most."""
LONGEST_LINE = 2**20
"""Bytes of a line that `whole_lines` reads at most."""

_ORDINARY = re.compile(r"[A-Za-z0-9_.-]+")


def shown(value: Any, length: int = SHOWN_LENGTH) -> str:
    """A value from a file or a server, as an error message shows it: short, on one line, in bounded time.

    Texts and numbers are shown as Python writes them, and cut after `length` characters. Of all other values only
    the type is named: the repr of a container can be exponentially longer than the file that it came from.
    """
    if isinstance(value, str):
        return repr(value if len(value) <= length else value[:length] + "...")
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**length else f"a number of more than {length} digits"
    return f"a value of type {type(value).__name__}"


def shown_name(name: str) -> str:
    """An untrusted name, as an error message shows it: unchanged if it is short and of ordinary characters."""
    return name if len(name) <= SHOWN_LENGTH and _ORDINARY.fullmatch(name) else shown(name)


def shown_reason(error: BaseException, length: int = 200) -> str:
    """The text of a library's exception about an untrusted file, as an error message shows it: short, on one line."""
    said = str(error)[: length + 1]
    text = "".join(character if character.isprintable() else " " for character in said) or type(error).__name__
    return text if len(text) <= length else text[:length] + "..."


def read_at_most(path: Path, limit: int) -> bytes | None:
    """The content of a file; None if it has more than `limit` bytes. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for any text that is not JSON.

    `json.loads` also raises RecursionError, for deeply nested text.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file of any size, with their line ends. Unfinished lines, and those of more than LONGEST_LINE
    bytes, are left out.
    """
    is_start = True
    while part := file.readline(LONGEST_LINE):
        is_end = part.endswith(b"\n")
        if is_start and is_end:
            yield part
        is_start = is_end


def is_utf16(content: bytes) -> bool:
    """Whether bytes look like a text in UTF-16, as Windows writes it. Without a byte order mark it can be UTF-8 too.

    Every other byte of such a text in a European language is 0.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    start = content[:512]
    zeros = sorted((start[::2].count(0), start[1::2].count(0)))
    return len(start) >= 4 and zeros[0] == 0 and zeros[1] > len(start) // 4


def is_name(value: Any) -> bool:
    """Whether a value can be the name of a model: a text on one line, short enough for the path of a file."""
    return isinstance(value, str) and value.isprintable() and all(len(part.encode()) < 256 for part in value.split("/"))


def is_encodable(text: str) -> bool:
    """Whether a text can be written to a file: not if it has halves of surrogate pairs, which JSON can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_file(path: Path) -> bool:
    """Whether a file is there. False also for a name that no file system can hold, or that may not be looked at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def missing(path: Path) -> str:
    """What is wrong with a path for which `is_file` is false."""
    return "not an ordinary file" if os.path.lexists(path) else "not there"


def is_directory(path: Path) -> bool:
    """Whether a directory is there. False also for a name that no file system can hold, or may not be looked at."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
