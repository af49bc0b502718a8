"""What the page of an explanation draws: shades of numbers, bars, maps of parts, names of tokens."""

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

LOG_2 = math.log(2)
SHADES = 10
"""Shades of a colour in the style sheet: s0, the palest, to s9."""
BITS = (0.5, 1, 2, 3, 4, 6, 8, 10, 13)
"""Where the next shade begins, for surprisal in bits."""
PROBABILITIES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Where the next shade begins, for probabilities."""
DIVERGENCES = (0.05, 0.2, 0.5, 1, 2, 3, 5, 8, 12)
"""Where the next shade begins, for divergences in nats."""
TOP = 20
"""The number of bars for parts."""
_DIRECTIONS = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
_SPACES = {" ": "·", "\n": "↵", "\t": "⇥"}


class Bar(NamedTuple):
    """A number and its bar. `start` and `length` are in percent of the largest absolute value."""

    name: str
    value: float
    start: float
    length: float


class PartMap(NamedTuple):
    """Numbers of parts by layer. A cell is None if there is no such part.

    columns  `0`, `1`, ... for the heads, then `bias`, `attention`, `MLP`
    rows     the layer and the number of each column
    others   the parts that belong to no layer
    largest  the largest absolute value of the rows
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[float | None, ...]], ...]
    others: dict[str, float]
    largest: float


def shade(value: float, beginnings: Sequence[float]) -> int:
    """The number of the shade, from 0 to 9."""
    return bisect_right(beginnings, value)


def signed_shade(value: float, largest: float) -> str:
    """The class of a shade for a number from -largest to largest. Below 0 it has the other colour."""
    part = min(1.0, abs(value) / largest) if largest else 0.0
    return f"s{round(part * (SHADES - 1))}" + (" neg" if value < 0 else "")


def bars(values: Mapping[str, float], most: int | None = TOP) -> list[Bar]:
    """Bars of the largest absolute values, the largest first; of all values in their order if `most` is None."""
    names = list(values)
    if most is not None:
        names = sorted(names, key=lambda name: -abs(values[name]))[:most]
    largest = max((abs(values[name]) for name in names), default=0.0) or 1.0
    found = {name: 100 * values[name] / largest for name in names}
    return [Bar(name, values[name], min(0.0, length), abs(length)) for name, length in found.items()]


def part_map(values: Mapping[str, float]) -> PartMap:
    """The numbers of parts such as `9.6`, `attn.9.bias` and `mlp.9`, by layer."""
    layers: dict[int, dict[str, float]] = {}
    others: dict[str, float] = {}
    for part, value in values.items():
        match part.split("."):
            case [layer, head] if layer.isdigit():
                layers.setdefault(int(layer), {})[head] = value
            case ["mlp", layer]:
                layers.setdefault(int(layer), {})["MLP"] = value
            case ["attn", layer]:
                layers.setdefault(int(layer), {})["attention"] = value
            case ["attn", layer, "bias"]:
                layers.setdefault(int(layer), {})["bias"] = value
            case _:
                others[part] = value
    names = {name for row in layers.values() for name in row}
    heads = sorted((name for name in names if name.isdigit()), key=int)
    columns = (*heads, *(name for name in ("bias", "attention", "MLP") if name in names))
    rows = tuple((layer, tuple(map(layers[layer].get, columns))) for layer in sorted(layers))
    return PartMap(columns, rows, others, largest(row for _, row in rows))


def sums(values: Mapping[str, float]) -> dict[str, float]:
    """What the parts of an attribution add together, kind by kind."""
    found: dict[str, float] = {}
    for part, value in values.items():
        match part.split("."):
            case ["mlp", _]:
                kind = "MLPs"
            case ["attn", _, "bias"]:
                kind = "attention biases"
            case [layer, _] if layer.isdigit():
                kind = "heads"
            case _:
                kind = part
        found[kind] = found.get(kind, 0.0) + value
    return found


def lens_part(row: Mapping[str, Any]) -> str:
    """The part after which a row of the lens is taken: `attn.9`, `mlp.9` or `embedding`."""
    return row["after"] if row["layer"] is None else f"{row['after']}.{row['layer']}"


def largest(rows: Iterable[Iterable[float | None]]) -> float:
    """The largest absolute value, 0 if there is none."""
    return max((abs(value) for row in rows for value in row if value is not None), default=0.0)


def digits(largest: float) -> int:
    """Digits after the point: two, and more if the largest number of a table is so small that two would show little."""
    return min(6, max(2, 1 - math.floor(math.log10(largest)))) if largest else 2


def token_name(text: str) -> str:
    """A token's text on one line: spaces and line ends as signs, invisible characters as their code points."""
    return "".join(_SPACES.get(character) or _shown(character) for character in text)


def one_line(text: str) -> str:
    """A text on one line. The characters that set a direction of writing are shown as their code points."""
    shown = (_shown(c) if unicodedata.bidirectional(c) in _DIRECTIONS else c for c in " ".join(text.split()))
    return "".join(shown)


def _shown(character: str) -> str:
    # a control character is left to the page, which has a picture for each
    hidden = unicodedata.category(character) in ("Cf", "Zs", "Zl", "Zp", "Cn", "Co")
    return f"[U+{ord(character):04X}]" if hidden else character


def number(value: Any, digits: int = 2) -> str:
    """A number for a reader, with a minus sign. A dash for None."""
    if value is None:
        return "–"
    shown = f"{value:,.{digits}f}"
    return shown.lstrip("-") if not float(shown.replace(",", "")) else shown.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """As `number`, with a plus sign above 0."""
    shown = number(value, digits)
    return "+" + shown if shown.strip("0.,") and value > 0 else shown


def percent(value: float | None) -> str:
    """A probability in percent, with two digits at least. A dash for None."""
    if value is None:
        return "–"
    if 0 < value < 0.0001:
        return "<0.01 %"
    return f"{100 * value:.{1 if value >= 0.1 else 2}f} %"
