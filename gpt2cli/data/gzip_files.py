"""Opens data files. A file with a name that ends in `.gz` is unpacked while it is read."""

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from gpt2cli.checkpoints.headers import looks_like
from gpt2cli.errors import DataError
from gpt2cli.untrusted import shown_reason

ENDING, MAGIC = ".gz", b"\x1f\x8b"
MAX_RATIO, SMALL = 200, 2**26
"""A file may unpack to SMALL bytes, or to MAX_RATIO times its size. Text of a million equal records is below this."""


def ending(path: Path) -> str:
    """The last suffix of a file name, in lower case; for a packed file with the one before, as in `.csv.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() + suffix if suffix == ENDING else suffix


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError, and DataError for a `.gz` file that is not packed, or another that is.

    Reading raises DataError if a `.gz` file is damaged, or unpacks to much more than any text would.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if path.suffix.lower() != ENDING:
        if start.startswith(MAGIC):
            advice = "unpack it" if path.suffix.lower() == ".txt" else f"name it {path.name}{ENDING}"
            raise DataError(f"{path} is packed by gzip: {advice}")
        return path.open("rb")
    if not start.startswith(MAGIC):
        raise DataError(f"{path} is not a gzip file (looks like {looks_like(start)}): remove .gz from its name")
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path), 2**16))


class _Unpacked(io.RawIOBase):
    """The bytes that are packed in a gzip file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = self._most = max(SMALL, MAX_RATIO * path.stat().st_size)
        self._file = gzip.open(path)  # noqa: SIM115 (close() closes it)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        try:
            count = self._file.readinto(buffer)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{self._path} is a damaged gzip file ({shown_reason(error)}): pack it again") from None
        self._left -= count
        if self._left < 0:
            most = f"{self._most / 2**20:,.0f} MB"
            raise DataError(f"{self._path} unpacks to more than {most}, which no text does: unpack it yourself")
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
