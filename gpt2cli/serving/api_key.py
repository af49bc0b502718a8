"""The key that clients must send, from a file or the environment. No message contains it."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from gpt2cli import paths
from gpt2cli.errors import DataError, ResourceError
from gpt2cli.untrusted import read_at_most

VARIABLE = "GPT2CLI_API_KEY"
LONGEST = 1024
"""The largest number of bytes in the file of a key."""


def read_api_key(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The key in a file, else in the environment variable GPT2CLI_API_KEY; None without either.

    An empty variable counts as none. Raises DataError for a file that is missing or holds no key, and for a key that
    HTTP headers cannot contain, and ResourceError for a file that cannot be read.
    """
    if file is None:
        text = environment.get(VARIABLE)
        return _checked(text, VARIABLE, "set another one") if text else None
    file = paths.expand(file)
    return _checked(_content(file), str(file), "write the key into it, on one line, and nothing else")


def exposed(file: Path) -> str | None:
    """What to do about a key file that other users of this machine can read; None if they cannot."""
    status = paths.expand(file).stat()
    if os.name == "nt" or not stat.S_ISREG(status.st_mode) or not status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return None
    return f"other users of this machine can read the key in {file}: chmod 600 {file}"


def _content(file: Path) -> str:
    try:
        content = read_at_most(file, LONGEST)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"cannot read {file} ({error.strerror}): name a file as --api-key-file") from None
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"cannot read {file} ({reason}): name another file as --api-key-file") from None
    if content is None:
        raise DataError(f"{file} is too long for a key: write the key into it, on one line, and nothing else")
    return content.decode("utf-8-sig", errors="replace")  # Windows' editors begin a file with a byte order mark


def _checked(text: str, where: str, advice: str) -> str:
    """The key without the blanks and line ends around it."""
    key = text.strip()
    if not key:
        raise DataError(f"{where} holds no key: {advice}")
    if len(key.splitlines()) > 1:
        raise DataError(f"{where} holds several lines: {advice}")
    if not all("!" <= character <= "~" for character in key):
        raise DataError(f"the key in {where} has blanks or characters that are not ASCII: {advice}")
    return key
