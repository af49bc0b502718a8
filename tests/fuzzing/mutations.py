"""Changes to a file that an attacker, a broken disk, or another program could make. Each draws from `choose` alone."""

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), 2**31, 2**63, 10**30),
    *("", "x", "3", "\0", "\ud800", "a\nb", "\x1b[2J", "../x", "/etc/passwd", "x" * 300, "y" * 100_000),
    *([], {}, [[]], [1, 2], {"a": 1}, [None] * 2_000),
)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "U16", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "X")
SIZES = (0, 1, 2, 3, 31, 33, 64, 255, 2**16, 2**20, 2**31, 2**32, 2**40, 2**63 - 1, 2**64)
Mutation = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, choose: random.Random) -> bytes:
    """A few bytes become others, mostly near the beginning, where headers are, or near the end."""
    changed, length = bytearray(content), len(content)
    for _ in range(choose.choice((1, 1, 2, 4, 16))):
        near = choose.choice((length, length, min(length, 64), min(length, 4096)))
        at = choose.randrange(near) if choose.random() < 0.9 else length - 1 - choose.randrange(min(length, 200))
        changed[at] = choose.choice((choose.randrange(256), 0, 0xFF, changed[at] ^ 1 << choose.randrange(8)))
    return bytes(changed)


def overwrite(content: bytes, choose: random.Random) -> bytes:
    """A number of 2, 4 or 8 bytes becomes an extreme one."""
    at = choose.randrange(min(len(content), choose.choice((64, 2048, len(content)))))
    width = choose.choice((2, 4, 8))
    value = choose.choice((0, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1, choose.getrandbits(8 * width)))
    number = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return content[:at] + number + content[at + width :]


def cut(content: bytes, choose: random.Random) -> bytes:
    """The file ends early, lacks a piece, or has one twice, or one more."""
    at = choose.randrange(len(content))
    length = choose.choice((1, 8, 100, len(content) // 3))
    return choose.choice(
        (
            content[:at],
            content[: choose.choice((0, 4, 9, 100))],
            content[:at] + content[at + length :],
            content[:at] + content[at : at + length] + content[at:],
            content + bytes(length),
            content + content,
            bytes(at) + content[at:],
        )
    )


def change_json(content: bytes, choose: random.Random) -> bytes:
    """A value in a JSON text becomes an odd one, goes, or comes twice; or the text becomes a strange one."""
    if choose.random() < 0.1:
        deep = choose.choice((300, 5_000, 100_000))
        return choose.choice((b"", b"null", b"[]", b"7", b"\xff\xfe{\0}\0", b"{" * deep, b'{"a":' + b"[" * deep))
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return flip(content, choose)
    for _ in range(choose.choice((1, 1, 1, 2, 4))):
        change_member(value, choose)
    text = json.dumps(value)
    if choose.random() < 0.05:
        deep = choose.choice((300, 990, 5_000, 100_000))
        text = text.replace("1", "[" * deep + "]" * deep, 1)
    if choose.random() < 0.05:
        text = text.replace("1", choose.choice(("1" * 5_000, "1e999999", "-1e999999", "1" * 400)), 1)
    return text.encode("utf-8", "surrogatepass")


def change_lines(content: bytes, choose: random.Random) -> bytes:
    """One of the lines, each a JSON text, changes."""
    lines = content.splitlines()
    at = choose.randrange(len(lines))
    lines[at] = change_json(lines[at], choose)
    return b"\n".join(lines) + b"\n"


def change_member(value: Any, choose: random.Random) -> None:
    """Change one member somewhere in a tree of dicts and lists, in place."""
    while isinstance(value, dict | list) and value:
        key = choose.choice(list(value)) if isinstance(value, dict) else choose.randrange(len(value))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and choose.random() < 0.8:
            value = inner
            continue
        action = choose.random()
        if action < 0.1:
            del value[key]
        elif action < 0.2 and isinstance(value, dict):
            value[str(choose.choice(ODD))] = value.pop(key)
        elif action < 0.35 and isinstance(inner, int):
            value[key] = inner + choose.choice((-1, 1, 2**20, -(2**40)))
        elif action < 0.45 and isinstance(inner, str) and inner:
            value[key] = change_json(inner.encode("utf-8", "replace"), choose).decode("utf-8", "replace")
        else:
            value[key] = copy.deepcopy(choose.choice(ODD))  # a later change may be within it
        return


def change_safetensors(content: bytes, choose: random.Random) -> bytes:
    """What the header says of a tensor changes, or the whole of what it says."""
    length = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    kind, name = choose.randrange(9), choose.choice(names)
    if kind == 0:
        header[name]["dtype"] = choose.choice(DTYPES)
    elif kind == 1:
        shape = header[name]["shape"] or [1]
        header[name]["shape"] = choose.choice((shape[::-1], [1, *shape], [*shape, 0], [0], [], shape * 3, [2**62, 4]))
    elif kind == 2:
        shape = header[name]["shape"] or [1]
        shape[choose.randrange(len(shape))] = choose.choice(SIZES)
    elif kind == 3:
        header[name]["data_offsets"] = choose.choice(([0, 4], [4, 0], [0, len(rest)], header[names[0]]["data_offsets"]))
    elif kind == 4:
        header[choose.choice(("a", "h.7.ln_1.weight", "wte.index", f"{name}.scale", "n" * 5_000))] = header.pop(name)
    elif kind == 5:
        pattern = choose.choice(("h.{}.ln_1.weight", "x{}", "h.{}.attn.c_attn.weight", "train{}.tokens"))
        shape = choose.choice(([0], [0, 2**40]))
        empty = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        header |= {pattern.format(number): empty for number in range(choose.choice((3, 1_000, 30_000)))}
    elif kind == 6:
        return rows_of_one(choose.choice((30_000, 65_536, 10**6)))
    elif kind == 7:
        new, size = choose.choice(("F8_E4M3", "BF16", "C64", "BOOL")), choose.choice((1, 2, 4, 8))
        begin, end = header[name]["data_offsets"]
        header[name] |= {"dtype": new, "shape": [(end - begin) // size]}
    else:
        return with_header(change_json(json.dumps(header).encode(), choose), rest)
    return with_header(json.dumps(header).encode(), rest)


def rows_of_one(width: int) -> bytes:
    """A file with one row of an embedding, and an index that names it as often as it is wide."""
    header = {
        "wte.weight": {"dtype": "F32", "shape": [1, width], "data_offsets": [0, 4 * width]},
        "wte.index": {"dtype": "U8", "shape": [width], "data_offsets": [4 * width, 5 * width]},
        "wpe.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [5 * width, 5 * width + 4]},
    }
    return with_header(json.dumps(header).encode(), bytes(5 * width + 4))


def with_header(header: bytes, rest: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + rest
