"""The downloaded models on disk: how they are found, listed and removed. Nothing here uses the network.

    models/openai-community--gpt2/<commit>/{config.json, model.safetensors, manifest.json}
    models/openai-community--gpt2/refs/main        the commit that `main` stood for when it was downloaded
    models/openai-community--gpt2/.staging/        files being downloaded; a killed download continues from here
    models/.locks/                                 one process at a time changes a repository's directory

A directory counts as a model once its manifest is there, and the manifest is written last.
"""

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from gpt2cli import paths
from gpt2cli.atomic import write_text
from gpt2cli.config import PUBLISHED, TINY
from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.hub.resumable_download import RemoteFile
from gpt2cli.outputs import check_directory
from gpt2cli.untrusted import parse_json

DEFAULT_REVISION = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"\w[\w./+-]{0,99}", re.ASCII)
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CachedModel:
    """A whole model on disk. `model` is what one types to use it; `downloaded_at` is ISO 8601 in UTC."""

    model: str
    revision: str
    path: Path
    bytes: int
    downloaded_at: str


def parse_name(name: str) -> tuple[str, str]:
    """Split what somebody typed into repository and revision: `gpt2`, or `owner/name[@revision]`.

    Raises UsageError for anything else. A name becomes part of paths and addresses, so only plain characters may be
    in it.
    """
    if name == TINY:
        raise UsageError("tiny comes with gpt2cli, there is nothing to download: use --model tiny")
    base, at, revision = name.partition("@")
    repo = PUBLISHED[base].repo if base in PUBLISHED else base
    is_repo = _REPO.fullmatch(repo) and "--" not in repo and ".." not in repo
    if not is_repo or (at and not _is_revision(revision)):
        known = ", ".join([TINY, *PUBLISHED])
        raise UsageError(
            f"{name[:200]!r} is not a model: give {known}, a Hub repository as owner/name[@revision], or a directory"
        )
    return repo, revision or DEFAULT_REVISION


def check_revision(revision: str) -> str:
    """Return the revision (a branch, tag or commit) if it is well formed, else raise UsageError."""
    if not _is_revision(revision):
        raise UsageError(f"{revision[:200]!r} is not a revision: give a branch, a tag or a commit, such as main")
    return revision


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def short_name(repo: str) -> str:
    """The published short name of a repository, or its full name if it has none."""
    return next((name for name, published in PUBLISHED.items() if published.repo == repo), repo)


def repo_directory(repo: str) -> Path:
    """Where everything about one repository is kept."""
    return paths.models() / repo.replace("/", "--")


def staging_directory(repo: str, commit: str) -> Path:
    """Where the files of one commit are while they are downloaded."""
    return repo_directory(repo) / ".staging" / commit


def check_space(needed: int) -> None:
    """Raise ResourceError if so many bytes do not fit on the disk."""
    models = paths.models()
    free = shutil.disk_usage(models).free
    if needed > free:
        sizes = f"{needed / 1e6:,.1f} MB are needed in {models}, {free / 1e6:,.1f} MB are free"
        raise ResourceError(f"{sizes}: make room, or set GPT2CLI_HOME to a directory on another disk")


def find(repo: str, revision: str) -> CachedModel | None:
    """The model as it is on disk, or None if it is not there or not whole. A commit is found under any name."""
    commit = revision if COMMIT.fullmatch(revision) else _refs(repo).get(revision)
    return _read(repo_directory(repo) / commit, revision) if commit else None


def list_models() -> list[CachedModel]:
    """Every whole model on disk, sorted by name. If no branch or tag points to a model, its commit is its revision."""
    found = []
    for manifest in sorted(paths.models().glob(f"*--*/*/{_MANIFEST}")):
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
    home = repo_directory(repo)
    write_text(home / commit / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    (home / "refs").mkdir(exist_ok=True)
    write_text(home / "refs" / quote(revision, safe=""), commit + "\n")


def remove(repo: str, revision: str | None, on_wait: Callable[[], None]) -> list[CachedModel]:
    """Delete a model, in all its revisions if `revision` is None, and return the whole models that were deleted.

    Raises UsageError if it is not there. `on_wait` is called if another process is busy with the same repository.
    """
    with lock(repo, on_wait):
        models = [model for model in list_models() if model.path.parent == repo_directory(repo)]
        asked = find(repo, revision) if revision else None
        doomed = models if revision is None else [model for model in models if asked and model.path == asked.path]
        if not doomed and (revision or not repo_directory(repo).is_dir()):
            there = ", ".join(f"{model.model}@{model.revision}" for model in list_models()) or "none"
            wanted = f"{short_name(repo)}@{revision}" if revision else short_name(repo)
            raise UsageError(f"{wanted} is not on disk; the models that are: {there}")
        if len(doomed) == len(models):
            discard(repo_directory(repo))
        else:
            _forget(repo, {model.path.name for model in doomed})
        sweep(repo)
    return doomed


def _forget(repo: str, commits: set[str]) -> None:
    """Remove some commits and the names that lead to them; the other commits stay."""
    for commit in commits:
        discard(repo_directory(repo) / commit)
    for revision, commit in _refs(repo).items():
        if commit in commits:
            (repo_directory(repo) / "refs" / quote(revision, safe="")).unlink()


def discard(directory: Path) -> None:
    """Rename a directory, then delete it, so that a half-deleted one is never taken for a model."""
    trash = paths.models() / f".trash-{secrets.token_hex(8)}"
    directory.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def sweep(repo: str, keep: str | None = None) -> None:
    """Delete what killed runs left behind: trash, half-written files, and half-downloaded commits except `keep`."""
    home = repo_directory(repo)
    commits = [path for path in home.glob("[!.]*") if COMMIT.fullmatch(path.name) and not (path / _MANIFEST).exists()]
    stale = [path for path in [*commits, *(home / ".staging").glob("*")] if path.name != keep]
    for path in [*stale, *paths.models().glob(".trash-*"), *_half_written(repo)]:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # version 0.1 left files
            path.unlink()


def _half_written(repo: str) -> list[Path]:
    """Temporary files and directories of killed runs, which held new manifests and refs."""
    return list(repo_directory(repo).glob("*/.*.tmp"))


def sweep_if_idle(repo: str) -> None:
    """Delete what a killed run left beside a whole model, unless another process holds the lock."""
    from filelock import FileLock, Timeout

    if any((repo_directory(repo) / ".staging").glob("*")) or _half_written(repo):
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
    """Hold a lock file. Its directory is made. Calls `on_wait` once if another process holds the lock."""
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


def _refs(repo: str) -> Mapping[str, str]:
    """The revisions that were downloaded, and the commit that each meant."""
    refs = {}
    for path in (repo_directory(repo) / "refs").glob("[!.]*"):
        commit = path.read_text(encoding="ascii", errors="replace").strip()
        if COMMIT.fullmatch(commit):
            refs[unquote(path.name)] = commit
    return refs


def _read(directory: Path, revision: str) -> CachedModel | None:
    """A model by its manifest, if every file of it is there at its full size."""
    try:
        manifest: dict[str, Any] = parse_json((directory / _MANIFEST).read_bytes())
        sizes = {str(name): int(file["size"]) for name, file in manifest["files"].items()}
        if any((directory / name).stat().st_size != size for name, size in sizes.items()):
            return None
        model, date = short_name(str(manifest["repo"])), str(manifest["downloaded_at"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return CachedModel(model, revision, directory, sum(sizes.values()), date)
