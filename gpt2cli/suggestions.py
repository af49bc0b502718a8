"""Which of the known names was probably meant by a wrong one, for error messages."""

import difflib
import re
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


def files_beside(path: Path) -> list[str]:
    """The paths of visible files in the directory of a missing file. A wrong name may mean one of them."""
    found: list[str] = []
    with suppress(OSError):
        visible = (other for other in path.parent.iterdir() if not other.name.startswith("."))
        found = sorted(str(other) for other in islice(visible, MOST_FILES) if other.is_file())
    return found


def advise(guess: str, advice: str) -> str:
    """The advice of an error message, after the question of `did_you_mean` if there is one."""
    return f"{guess} Otherwise {advice}" if guess else advice


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
