"""Reads object files in the ELF format ("ELF-64 Object File Format", version 1.5)."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

SYMBOL_TABLE = 2
"""The type of a section with symbols."""


class Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


def sections(code: bytes) -> dict[str, Section]:
    """The sections of an object file, by name."""
    assert code[:6] == b"\x7fELF\x02\x01"  # 64 bits, little-endian
    (start,) = struct.unpack_from("<Q", code, 0x28)
    size, count, names = struct.unpack_from("<HHH", code, 0x3A)
    found = [Section(*struct.unpack_from("<IIQQQQIIQQ", code, start + n * size)) for n in range(count)]
    return {_text(code, found[names], section.name): section for section in found}


def undefined_symbols(code: bytes) -> set[str]:
    """The functions and variables that an object file needs from elsewhere."""
    found, names = sections(code), set()
    for table in (section for section in found.values() if section.kind == SYMBOL_TABLE):
        for at in range(table.offset, table.offset + table.size, 24):
            name, _, _, section = struct.unpack_from("<IBBH", code, at)
            if section == 0 and name:
                names.add(_text(code, list(found.values())[table.link], name))
    return names


def words(code: bytes, section: str) -> Iterator[int]:
    """The 32-bit words of a section. An instruction of 64-bit ARM is one word."""
    found = sections(code)[section]
    return (word for (word,) in struct.iter_unpack("<I", code[found.offset :][: found.size // 4 * 4]))


def _text(code: bytes, table: Section, at: int) -> str:
    begin = table.offset + at
    return code[begin : code.index(b"\0", begin)].decode()
