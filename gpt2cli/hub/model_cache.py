"""The downloaded models on disk: finding, listing and removing them, without the network.

    models/openai-community--gpt2/<commit>/{config.json, model.safetensors, manifest.json}
    models/openai-community--gpt2/<commit>/packed/ its weights as the CPU's loops read them, made when they are used
    models/openai-community--gpt2/refs/main        the commit that `main` stood for when it was downloaded
    models/openai-community--gpt2/.staging/        files being downloaded; a killed download continues from here
    models/.locks/                                 one process at a time changes a repository's directory

A directory counts as a model if it has a manifest, which is written last. A file in it can be a hard link to a file in
the Hugging Face cache: it may be replaced or deleted, but never written to.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from gpt2cli import paths
from gpt2cli.atomic import write_text
from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.hub.names import COMMIT, short_name
from gpt2cli.hub.resumable_download import RemoteFile
from gpt2cli.outputs import check_directory
from gpt2cli.untrusted import parse_json, read_at_most

MANIFEST = "manifest.json"
PACKED = "packed"
"""The directory in a model's for its packed weights: see `checkpoints/packed_directory.py`."""
MAX_MANIFEST = 2**20
"""Bytes of the largest manifest that is read. A manifest names 1,000 shards at most."""
HALF_WRITTEN = "*/.*.tmp"
"""Temporary files and directories of killed runs: half-written manifests and refs."""


@dataclass(frozen=True)
class CachedModel:
    """A complete model on disk.

    model          the name for `--model`
    path           the directory of its files
    bytes          the total size of its files
    downloaded_at  ISO 8601, in UTC
    packed_bytes   the total size of its packed weights
    """

    model: str
    revision: str
    path: Path
    bytes: int
    downloaded_at: str
    packed_bytes: int


def repo_directory(repo: str) -> Path:
    """The directory for all files of one repository."""
    return paths.models() / repo.replace("/", "--")


def model_directory(repo: str, commit: str) -> Path:
    """The directory of the files of one commit."""
    return repo_directory(repo) / commit


def staging_directory(repo: str, commit: str) -> Path:
    """The directory of the files of one commit while they are downloaded."""
    return repo_directory(repo) / ".staging" / commit


def check_space(needed: int) -> None:
    """Raise ResourceError if the disk has less free space than `needed` bytes."""
    models = paths.models()
    free = shutil.disk_usage(models).free
    if needed > free:
        sizes = f"{needed / 1e6:,.1f} MB are needed in {models}, {free / 1e6:,.1f} MB are free"
        raise ResourceError(f"{sizes}: make room, or set GPT2CLI_HOME to a directory on another disk")


def find(repo: str, revision: str) -> CachedModel | None:
    """The model on disk, or None if it is missing or incomplete. A commit is found even if no branch points to it."""
    commit = revision if COMMIT.fullmatch(revision) else _refs(repo).get(revision)
    return _read(model_directory(repo, commit), revision) if commit else None


def list_models() -> list[CachedModel]:
    """Every complete model on disk, sorted by name. The revision is a branch or tag, or else the commit."""
    found = []
    for manifest in sorted(paths.models().glob(f"*--*/*/{MANIFEST}")):
        directory = manifest.parent
        repo = directory.parent.name.replace("--", "/")
        revisions = sorted(name for name, commit in _refs(repo).items() if commit == directory.name)
        model = _read(directory, revisions[0] if revisions else directory.name)
        if model:
            found.append(model)
    return found


def publish(repo: str, revision: str, commit: str, files: list[RemoteFile]) -> None:
    """Record that a commit's directory is complete, and that the revision means this commit."""
    manifest = {
        "repo": repo,
        "revision": revision,
        "commit": commit,
        "downloaded_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "files": {file.name: {"size": file.size, "digest": file.digest} for file in files},
    }
    write_text(model_directory(repo, commit) / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    ref = _ref_file(repo, revision)
    ref.parent.mkdir(exist_ok=True)
    write_text(ref, commit + "\n")


def remove(repo: str, revision: str | None, on_wait: Callable[[], None]) -> list[CachedModel]:
    """Delete a model, in all its revisions if `revision` is None, and return the complete models among those deleted.

    Raises UsageError if it is not on disk. `on_wait` is called if another process is busy with the same repository.
    """
    with lock(repo, on_wait):
        whole = [model for model in list_models() if model.path.parent == repo_directory(repo)]
        asked = find(repo, revision) if revision else None
        doomed = [model for model in whole if revision is None or (asked and model.path == asked.path)]
        if not doomed and (revision or not repo_directory(repo).is_dir()):
            there = ", ".join(f"{model.model}@{model.revision}" for model in list_models()) or "none"
            wanted = f"{short_name(repo)}@{revision}" if revision else short_name(repo)
            raise UsageError(f"{wanted} is not on disk; the models on disk: {there}")
        for directory in [model.path for model in doomed] if len(doomed) < len(whole) else [repo_directory(repo)]:
            _delete(directory)
        for name, commit in _refs(repo).items():
            if not model_directory(repo, commit).exists():
                _ref_file(repo, name).unlink()
        sweep(repo)
    return doomed


def _delete(directory: Path) -> None:
    """Rename a directory, then delete it, so that a half-deleted one never counts as a model."""
    trash = paths.models() / f".trash-{secrets.token_hex(8)}"
    directory.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def sweep(repo: str, keep: str | None = None) -> None:
    """Delete what killed runs left behind: trash, half-written files, and half-downloaded commits except `keep`."""
    home = repo_directory(repo)
    commits = [path for path in home.glob("[!.]*") if COMMIT.fullmatch(path.name) and not (path / MANIFEST).exists()]
    stale = [path for path in [*commits, *(home / ".staging").glob("*")] if path.name != keep]
    for path in [*stale, *paths.models().glob(".trash-*"), *home.glob(HALF_WRITTEN)]:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # version 0.1 left files
            path.unlink()


def sweep_if_idle(repo: str) -> None:
    """Delete what a killed run left beside a complete model, unless another process holds the lock."""
    from filelock import FileLock, Timeout

    home = repo_directory(repo)
    if any((home / ".staging").glob("*")) or any(home.glob(HALF_WRITTEN)):
        with suppress(Timeout, OSError), FileLock(_lock_file(repo), timeout=0):
            sweep(repo)


@contextmanager
def lock(repo: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Lock a repository's directory. Calls `on_wait` once if another process holds the lock.

    Raises ResourceError if the directory cannot be written, before anything is downloaded.
    """
    with lock_file(_lock_file(repo), on_wait):
        check_directory(repo_directory(repo))
        yield


@contextmanager
def lock_file(file: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, whose directory is created. Calls `on_wait` once if another process holds the lock."""
    from filelock import FileLock, Timeout

    paths.make(file.parent)
    check_directory(file.parent)
    held = FileLock(file)
    try:
        held.acquire(timeout=0)
    except Timeout:
        on_wait()
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _lock_file(repo: str) -> Path:
    return paths.models() / ".locks" / f"{repo_directory(repo).name}.lock"


def _ref_file(repo: str, revision: str) -> Path:
    """The file that holds the commit of a revision."""
    return repo_directory(repo) / "refs" / quote(revision, safe="")


def _refs(repo: str) -> dict[str, str]:
    """The downloaded revisions, and the commit of each when it was downloaded."""
    refs = {}
    for path in (repo_directory(repo) / "refs").glob("[!.]*"):
        commit = (read_at_most(path, 100) or b"").decode("ascii", errors="replace").strip()
        if COMMIT.fullmatch(commit):
            refs[unquote(path.name)] = commit
    return refs


def _read(directory: Path, revision: str) -> CachedModel | None:
    """The model in a directory, by its manifest; None unless all its files exist in full size."""
    try:
        manifest: dict[str, Any] = parse_json(read_at_most(directory / MANIFEST, MAX_MANIFEST) or b"")
        sizes = {str(name): int(file["size"]) for name, file in manifest["files"].items()}
        if any((directory / name).stat().st_size != size for name, size in sizes.items()):
            return None
        model, date = short_name(str(manifest["repo"])), str(manifest["downloaded_at"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return CachedModel(model, revision, directory, sum(sizes.values()), date, _size_of(directory / PACKED))


def _size_of(directory: Path) -> int:
    """The bytes of the files in a directory. Another process may be changing them."""
    size = 0
    for path in directory.glob("[!.]*"):
        with suppress(OSError):
            size += path.stat().st_size
    return size
