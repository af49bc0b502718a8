"""What gpt2cli keeps on disk: where it is, how large it is, and how to delete it."""

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpt2cli import paths, untrusted
from gpt2cli.training.run_list import size_of
from gpt2cli.training.runs import all_runs


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory or a file that gpt2cli keeps.

    name    what it holds, in the plural, which ends with an s
    count   how many of these it holds
    remove  the command that deletes one of them or, for some places, all
    """

    name: str
    path: Path
    bytes: int
    count: int
    remove: str

    @property
    def exists(self) -> bool:
        return os.path.lexists(self.path)


def places() -> list[Place]:
    """All places, also those that do not exist yet. Raises ResourceError if there is no home directory."""
    from gpt2cli.checkpoints.packed_directory import kept_bytes
    from gpt2cli.hub.model_cache import PACKED, list_models

    found = [
        _place("models", paths.models(), len(list_models()), "gpt2 download-weights --remove MODEL"),
        _place("data sets", paths.datasets(), sum(1 for _ in _data_sets())),
        _place("runs", paths.runs(), len(all_runs()), "gpt2 runs --remove RUN"),
        _place("interrupted evaluations", paths.evaluations(), len(list(paths.evaluations().glob("*.jsonl")))),
        _place("chat lines", paths.chat_history(), _chat_lines()),
    ]
    if packed := paths.packed():
        count, _ = kept_bytes(packed)
        found.append(_place("packed models", packed, count, f"gpt2 download-weights --remove {PACKED}"))
    if compiled := paths.compiled():
        found.append(_place("compiled loops", compiled, len(list(compiled.glob("[!.]*")))))
    return found


def remove_all(found: list[Place]) -> str:
    """The command that deletes all places. It names each of them: the directory above may hold other files."""
    there = [place.path for place in found if place.exists and place.bytes]
    return delete_command(*there) if there else ""


def delete_command(*places: Path, windows: bool = os.name == "nt") -> str:
    """The command of this system's shell that deletes these files and directories."""
    if not windows:
        return f"rm -r {' '.join(shlex.quote(str(place)) for place in places)}"
    commands = (f'{"del" if untrusted.is_file(place) else "rmdir /s"} "{place}"' for place in places)
    return " & ".join(commands)


def _place(name: str, path: Path, count: int, remove: str = "") -> Place:
    return Place(name=name, path=path, bytes=size_of(path), count=count, remove=remove or delete_command(path))


def _data_sets() -> Iterator[Path]:
    """The prepared datasets, and the files that were downloaded for them."""
    yield from paths.datasets().glob("*/data.safetensors")
    yield from paths.datasets().glob("downloads/[!.]*")


def _chat_lines() -> int:
    """The number of lines typed in chats. In the file, each line begins with `+` (see prompt_toolkit's FileHistory)."""
    with suppress(OSError):
        if untrusted.is_file(paths.chat_history()):
            with paths.chat_history().open("rb") as file:
                return sum(line.startswith(b"+") for line in untrusted.whole_lines(file))
    return 0
