"""Opens models for the compiled loops. Their packed weights are kept on disk, so that the next time they are only read.

A packed model is found again by the paths of the files that it was made of and its precision. It is used if none of
these files has changed: see `identity`. It has all facts that inference needs. So a `.pt` file that was packed before
is opened without torch. `packed_file` says what is in a file, `packed_directory` which files are kept.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpt2cli import background
from gpt2cli.checkpoints.packed_directory import SUFFIX, Kept, directory_for
from gpt2cli.checkpoints.packed_file import END, Arrays, Facts, packed_size, read_facts, read_packed, write_packed
from gpt2cli.config import GPTConfig
from gpt2cli.inference.cpu.weight_packing import Source, automatic_precision, pack_model
from gpt2cli.model.origin import Origin
from gpt2cli.private_files import open_private, reason
from gpt2cli.progress import Note, Progress, Received, ignore

AUTOMATIC = ("fp16", "int8")
"""What `auto` can mean: see `automatic_precision`."""


class Stored(Protocol):
    """A model as it is stored in its files."""

    @property
    def config(self) -> GPTConfig: ...

    @property
    def weights(self) -> Source: ...

    @property
    def origin(self) -> Origin: ...


@dataclass(frozen=True)
class PackedModel:
    """What CPUDecoder computes with. `arrays` has the names, shapes and types of `packed_table`."""

    config: GPTConfig
    origin: Origin
    precision: str
    arrays: Arrays


def open_or_pack(
    sources: Sequence[Path],
    precision: str,
    read: Callable[[Progress], Stored],
    home: Path | None = None,
    progress: Progress = ignore,
) -> PackedModel:
    """A model with packed weights, from disk if it was kept there. Else it is read and packed.

    What was packed is kept on disk if possible. It is written in the background: see `background`.

    sources    all files that the result depends on
    precision  one of PRECISIONS, or auto: see `automatic_precision`
    read       reads the model. Its notes are kept, and given to `progress` each time the model is opened.
    home       the directory of a downloaded model, which its packed weights are kept in; None for any other model

    Raises what `read` raises, CheckpointError for weights that are too large for `precision`, and MemoryError. If the
    disk turns out to be full or damaged, `progress` gets a note from `background.finish`.
    """
    made_of, kept = identities(sources), directory_for(home)
    names = {held: _file_name(sources, held) for held in (AUTOMATIC if precision == "auto" else (precision,))}
    if made_of is None or kept is None:
        return pack(read(progress), precision)
    if found := _open(kept, names, made_of, precision, progress):
        return found
    stored, notes = _read(read, progress)  # a model that is refused leaves nothing behind
    model = pack(stored, precision)
    if identities(sources) == made_of:
        facts = Facts(model.precision, model.config, model.origin, made_of, notes)
        name = names[model.precision]
        background.start(
            lambda go_on: _keep(kept, name, facts, model.arrays, go_on), lambda problem: progress(Note(problem))
        )
    return model


def identities(sources: Sequence[Path]) -> list[dict[str, Any]] | None:
    """What identifies the content of each file, or None if a file cannot be read."""
    try:
        return [identity(path) for path in sources]
    except OSError:
        return None


def identity(path: Path) -> dict[str, Any]:
    """What identifies the content of a file: its path, size, time of modification, and a digest of its ends.

    Raises OSError.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256(file.read(END))
        file.seek(max(0, status.st_size - END))
        digest.update(file.read(END))
    identity = {"path": _absolute(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    return identity | {"ends": digest.hexdigest()}


def _absolute(path: Path) -> str:
    """The absolute path, in characters that JSON can hold."""
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")


def _file_name(sources: Sequence[Path], precision: str) -> str:
    """The name of the file with these sources' weights in a precision. A source that changed has the same name."""
    named = "\0".join([precision, *map(_absolute, sources)])
    return f"{precision}-{hashlib.sha256(named.encode()).hexdigest()[:32]}{SUFFIX}"


def _open(
    kept: Kept, names: dict[str, str], made_of: list[dict[str, Any]], precision: str, progress: Progress
) -> PackedModel | None:
    """The packed model that was kept under one of the names, if it is whole and was made of these files."""
    for held, name in names.items():
        try:
            with open_private(kept.path / name) as file:
                facts = read_facts(file)
                is_meant = precision != "auto" or automatic_precision(facts.origin.precision) == held
                if facts.sources != made_of or facts.precision != held or not is_meant:
                    continue
                facts, arrays = read_packed(file)
        except (OSError, ValueError):
            continue
        kept.mark_used(name)
        for note in facts.notes:
            progress(Note(note))
        return PackedModel(facts.config, facts.origin, held, arrays)
    return None


def _read(read: Callable[[Progress], Stored], progress: Progress) -> tuple[Stored, list[str]]:
    """The model as it is stored, and the notes of reading."""
    notes: list[str] = []

    def listen(event: Received | Note) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
        progress(event)

    return read(listen), notes


def pack(stored: Stored, precision: str) -> PackedModel:
    """A model with packed weights, which are not kept on disk. Raises as `open_or_pack` for `precision`."""
    held = automatic_precision(stored.origin.precision) if precision == "auto" else precision
    arrays = dict(pack_model(stored.config, stored.weights, held))
    return PackedModel(stored.config, stored.origin, held, arrays)


def _keep(kept: Kept, name: str, facts: Facts, arrays: Arrays, go_on: background.GoOn) -> str | None:
    """Write a packed model to disk, if there is room and no other process writes. Returns a problem in words."""
    size = packed_size(facts.config, facts.precision)
    with kept.locked() as is_ours:
        if not is_ours or not kept.has_room(size):
            return None
        kept.make_room(size, name)
        try:
            with kept.writing(name) as file:
                write_packed(file, facts, arrays, go_on)
        except (OSError, MemoryError) as error:
            return f"the packed weights are not kept: {reason(kept.path, error)}"
    return None
