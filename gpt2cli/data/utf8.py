"""Reading text files in UTF-8."""

import re
from pathlib import Path

from gpt2cli.checkpoints.headers import looks_like
from gpt2cli.data.gzip_files import open_binary
from gpt2cli.errors import DataError
from gpt2cli.untrusted import is_utf16

BOM = b"\xef\xbb\xbf"
_CONTROLS = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")
"""Control characters that texts do not contain, in any encoding of single bytes."""


def read_utf8(path: Path) -> str:
    """A file's text without a byte order mark. Raises DataError, with the byte, if the file is not UTF-8."""
    with open_binary(path) as file:
        content = file.read()
    start = len(BOM) if content.startswith(BOM) else 0
    try:
        text = str(memoryview(content)[start:], "utf-8")
        if not is_utf16(content):
            return text
        where = f"{path} is not UTF-8"
    except UnicodeDecodeError as error:
        where = f"{path} is not valid UTF-8 at byte {start + error.start}"
    guess = "UTF-16" if is_utf16(content) else looks_like(content[:512])
    if guess in ("text", "unknown binary data") and not _CONTROLS.search(content[:4096]):
        guess = "text in Latin-1 or a similar encoding"
    raise DataError(f"{where} (looks like {guess}): convert it to UTF-8, or give another file")
