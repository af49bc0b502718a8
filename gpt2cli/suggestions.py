"""Which of the known names was probably meant by a wrong one, for error messages."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

SIMILAR = 0.75
"""The least similarity, from 0 to 1, of a wrong name to a known one that is suggested."""
SHORTEST_START = 2
"""The fewest characters of a wrong name that may be the start of a known one."""
MOST_FILES = 1000
"""The most files of a directory whose names are compared with a wrong one."""


def meant(wrong: str, known: Collection[str], others: Mapping[str, str] | None = None) -> str | None:
    """The known name that was probably meant; None if there is none.

    Case and punctuation do not count. A name is meant by another program's name for it (in `others`), by a similar
    name, or by its beginning.

    others  for names of other programs, in lower case and without punctuation: what to suggest
    """
    import difflib

    plain = _plain(wrong)
    by_plain = {_plain(name): name for name in known}
    if others and plain in others:
        return others[plain]
    similar = difflib.get_close_matches(plain, by_plain, n=1, cutoff=SIMILAR)
    if similar:
        return by_plain[similar[0]]
    longer = [name for name in by_plain if len(plain) >= SHORTEST_START and name.startswith(plain)]
    return by_plain[longer[0]] if longer else None


def did_you_mean(wrong: str, known: Collection[str], others: Mapping[str, str] | None = None) -> str:
    """A question for an error message, such as `did you mean gpt2?`; empty without a guess."""
    name = meant(wrong, known, others)
    return f"did you mean {name}?" if name else ""


def did_you_mean_file(path: Path, endings: tuple[str, ...] = ("",), others: Collection[str] = ()) -> str:
    """The question about a missing file: about a visible file beside it that was probably meant, or one of `others`.

    Only files with a name that ends so, in upper or lower case, can be meant. Directories and suffixes do not count,
    because most names have them in common.
    """
    beside: dict[str, str] = {}
    with suppress(OSError, ValueError):  # ValueError: an impossible name
        for other in islice(sorted(path.parent.iterdir()), MOST_FILES):
            if other.name.lower().endswith(endings) and not other.name.startswith(".") and other.is_file():
                beside[other.stem] = str(other)
    name = meant(path.stem, [*others, *beside])
    return f"did you mean {beside.get(name, name)}?" if name else ""


def advise(guess: str, advice: str) -> str:
    """The advice of an error message, after the question of `did_you_mean` if there is one."""
    return f"{guess} Otherwise {advice}" if guess else advice


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
