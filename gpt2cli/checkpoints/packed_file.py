"""A packed model as one file: facts, and the arrays as they lie in memory.

    8 bytes    MAGIC
    4 bytes    the header's length, little-endian
    32 bytes   the header's SHA-256
    header     the facts, in JSON
    zeros      up to a multiple of PAGE bytes
    arrays     in the order of `packed_table`, each from a multiple of 64 bytes on

To check all bytes of a large model would take longer than to read them. What is checked is the header's digest, the
names, shapes and types of the arrays, the size of the file and a digest of its ends (the first and last END bytes of
the arrays). A file gets its name after its bytes are on the disk, so a crash leaves no file of the right size with
other bytes. A disk that silently changes bytes in the middle is not noticed.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from threading import Thread
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpt2cli import __version__
from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu.huge_pages import ALIGNMENT, Arena, mapped
from gpt2cli.inference.cpu.packed_layout import LAYOUT_VERSION, packed_table, rounded_up
from gpt2cli.model.origin import Origin
from gpt2cli.untrusted import parse_json

MAGIC = b"GPT2PACK"
FORMAT_VERSION = 1
PAGE = 4096
"""The arrays begin at a multiple of this."""
END = 2**16
"""Bytes at each end that get a digest."""
LONGEST_HEADER = 2**24
READING_THREADS = 4
"""Threads that read a file. On two cores, two read twice as fast as one."""
BLOCK = 2**23
"""Bytes that are written at a time, up to a multiple of this in the file. Linux then has them in large pages."""
BLOCKS_SYNCED = 8
"""Blocks that are written to the disk at a time. A large file would take seconds, in which nothing can end it."""
READ_SIZE = 2**23
"""Bytes that a thread reads at a time; a smaller file is read by one thread."""
_PREFIX = struct.Struct("<8sI32s")

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Facts:
    """What is known of a packed model without reading its arrays.

    sources  the `packed_models.identity` of each file that it was made of
    notes    the notes that the user got when the model was read from these files
    """

    precision: str
    config: GPTConfig
    origin: Origin
    sources: list[dict[str, Any]]
    notes: list[str]


def write_packed(file: BinaryIO, facts: Facts, arrays: Arrays, go_on: Callable[[], None] = lambda: None) -> None:
    """Write a packed model to an empty file, which is open for reading too. The header is written last.

    `go_on` is called often. What it raises ends the writing.
    """
    header = _header(facts, "0" * 64)
    start = _data_start(len(header))
    file.seek(start)
    for number, block in enumerate(_blocks(start, _parts(facts, arrays)), start=1):
        go_on()
        file.write(block)
        if number % BLOCKS_SYNCED == 0:
            file.flush()
            os.fsync(file.fileno())
    size = packed_size(facts.config, facts.precision)
    ends = hashlib.sha256()
    for at in (0, max(0, size - END)):
        file.seek(start + at)
        ends.update(file.read(min(END, size)))
    header = _header(facts, ends.hexdigest())
    file.seek(0)
    file.write(_PREFIX.pack(MAGIC, len(header), hashlib.sha256(header).digest()) + header)


def read_facts(file: BinaryIO) -> Facts:
    """The facts of a packed model. Raises ValueError for a damaged header and for another version, and OSError."""
    return _read_header(file)[0]


def read_packed(file: BinaryIO) -> tuple[Facts, dict[str, NDArray[Any]]]:
    """A packed model: its facts, and its arrays, in large pages if possible. They cannot be changed.

    Raises ValueError if the file is damaged or of another version, MemoryError, and OSError.
    """
    facts, start, ends = _read_header(file)
    size = packed_size(facts.config, facts.precision)
    if os.fstat(file.fileno()).st_size != start + size:
        raise ValueError("the file has another size than its arrays")
    content = mapped(file)
    memory = _read(file, start, size) if content is None else content[start:]
    digest = hashlib.sha256(memory[:END].data)
    digest.update(memory[max(0, size - END) :].data)
    if digest.hexdigest() != ends:
        raise ValueError("the arrays are damaged")
    arrays, at = {}, 0
    for name, (shape, dtype) in packed_table(facts.config, facts.precision).items():
        length = int(np.prod(shape)) * dtype.itemsize
        arrays[name] = memory[at : at + length].view(dtype).reshape(shape)
        at += rounded_up(length, ALIGNMENT)
    return facts, arrays


def packed_size(config: GPTConfig, precision: str) -> int:
    """The bytes of all arrays in a file."""
    table = packed_table(config, precision).values()
    return sum(rounded_up(int(np.prod(shape)) * dtype.itemsize, ALIGNMENT) for shape, dtype in table)


def _header(facts: Facts, ends: str) -> bytes:
    return json.dumps(_versions() | asdict(facts) | {"arrays": _described(facts), "ends": ends}).encode()


def _versions() -> dict[str, Any]:
    """What must be the same when a file is read. Another version of gpt2cli may read a model in another way."""
    return {"format": FORMAT_VERSION, "layout": LAYOUT_VERSION, "gpt2cli": __version__}


def _whole(kind: type[T], values: dict[str, Any]) -> T:
    """A dataclass from the values of all its fields. Raises TypeError if one is missing."""
    if set(values) != {field.name for field in fields(kind)}:  # type: ignore[arg-type]
        raise TypeError(f"not the fields of {kind.__name__}")
    return kind(**values)


def _described(facts: Facts) -> list[Any]:
    """The names, types and shapes of the arrays, as the header has them."""
    table = packed_table(facts.config, facts.precision)
    return [[name, dtype.str, list(shape)] for name, (shape, dtype) in table.items()]


def _data_start(header_length: int) -> int:
    return rounded_up(_PREFIX.size + header_length, PAGE)


def _read_header(file: BinaryIO) -> tuple[Facts, int, str]:
    """The facts, where the arrays begin, and the digest of their ends."""
    file.seek(0)
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise ValueError("the file is truncated")
    magic, length, digest = _PREFIX.unpack(prefix)
    if magic != MAGIC or length > LONGEST_HEADER:
        raise ValueError("not a packed model")
    content = file.read(length)
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("the header is damaged")
    header = parse_json(content)
    try:
        if {name: header[name] for name in _versions()} != _versions():
            raise ValueError("another version of packed models")
        facts = Facts(
            precision=header["precision"],
            config=_whole(GPTConfig, header["config"]),
            origin=_whole(Origin, header["origin"]),
            sources=header["sources"],
            notes=[str(note) for note in header["notes"]],
        )
        if header["arrays"] != _described(facts):
            raise ValueError("the arrays have other names, shapes or types than the model")
        return facts, _data_start(length), str(header["ends"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the header lacks something ({error})") from None


def _parts(facts: Facts, arrays: Arrays) -> Iterator[memoryview]:
    """The bytes of all arrays as they lie in a file."""
    for name in packed_table(facts.config, facts.precision):
        array = arrays[name]
        yield array.reshape(-1).view(np.uint8).data
        yield memoryview(bytes(-array.nbytes % ALIGNMENT))


def _blocks(start: int, parts: Iterator[memoryview]) -> Iterator[memoryview]:
    """The same bytes in blocks that end at the multiples of BLOCK in a file, where the first begins at `start`."""
    block = memoryview(bytearray(BLOCK))
    first = end = start % BLOCK
    for part in parts:
        done = 0
        while done < len(part):
            count = min(BLOCK - end, len(part) - done)
            block[end : end + count] = part[done : done + count]
            end, done = end + count, done + count
            if end == BLOCK:
                yield block[first:]
                first = end = 0
    if first < end:
        yield block[first:end]


def _read(file: BinaryIO, start: int, size: int) -> NDArray[np.uint8]:
    """The bytes of a file from `start` on, in large pages. Raises ValueError, OSError and MemoryError."""
    memory: NDArray[np.uint8] = Arena().zeros((size,), np.uint8)
    _read_into(memory, file, start)
    memory.flags.writeable = False
    return memory


def _read_into(memory: NDArray[np.uint8], file: BinaryIO, start: int) -> None:
    """Fill an array with the bytes of a file from `start` on, in several threads. Raises ValueError, OSError."""
    pieces = range(0, len(memory), READ_SIZE)
    threads = min(READING_THREADS, os.cpu_count() or 1, len(pieces)) if hasattr(os, "preadv") else 1
    problems: list[Exception] = []
    if threads == 1:
        file.seek(start)
        if file.readinto(memory.data) != len(memory):  # type: ignore[attr-defined]
            raise ValueError("the file is truncated")
        return

    def read(pieces: range) -> None:
        try:
            for at in pieces:
                _read_piece(file.fileno(), memory[at : at + READ_SIZE], start + at)
        except (OSError, ValueError) as error:
            problems.append(error)

    readers = [Thread(target=read, args=(pieces[n::threads],)) for n in range(1, threads)]
    for reader in readers:
        reader.start()
    read(pieces[::threads])
    for reader in readers:
        reader.join()
    if problems:
        raise problems[0]


def _read_piece(descriptor: int, memory: NDArray[np.uint8], offset: int) -> None:
    done = 0
    while done < len(memory):
        count = os.preadv(descriptor, [memory[done:].data], offset + done)
        if count == 0:
            raise ValueError("the file is truncated")
        done += count
