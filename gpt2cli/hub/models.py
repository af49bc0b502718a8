"""Downloads of models from the Hugging Face Hub into the cache, and uploads to the Hub.

`hub_client` sends the requests, `resumable_download` writes and checks the bytes, and `model_cache` gives their paths.
A server's answers are untrusted: each is checked before it becomes part of a path.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from gpt2cli import paths
from gpt2cli.atomic import sync_directory
from gpt2cli.errors import CheckpointError, NetworkError, ResourceError
from gpt2cli.hub import hf_cache, model_cache
from gpt2cli.hub.environment import is_offline
from gpt2cli.hub.http_errors import MissingFileError
from gpt2cli.hub.hub_client import Remote, prepare_client
from gpt2cli.hub.model_cache import CachedModel
from gpt2cli.hub.names import (
    COMMIT,
    CONFIG,
    INDEX,
    WEIGHTS,
    DatasetFile,
    is_published,
    parse_name,
    short_name,
    suffix_of,
)
from gpt2cli.hub.resumable_download import LastingError, RemoteFile, fetch, matches, size_of
from gpt2cli.hub.tokenizer_files import FILES, OTHER_KINDS, VOCABULARIES, read_tokenizer, refuse
from gpt2cli.progress import Note, Progress, ignore
from gpt2cli.untrusted import parse_json, shown

PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
MAX_JSON = 2**24
MAX_SHARDS = 1000
"""Files of weights that an index may name. The 1.5B model has one, and each file needs requests."""
_SHARD = re.compile(r"\w[\w-]{0,99}\.safetensors", re.ASCII)


def resolve(name: str, *, offline: bool = False, progress: Progress = ignore, for_text: bool = False) -> Path:
    """The directory of a model by name (`gpt2`, `owner/name[@revision]`), downloaded if it is not on disk.

    With `for_text`, the weights of a model that was made for another tokenizer than GPT-2's are not downloaded.

    Raises UsageError for a text that is not a model's name, and the errors of `download`.
    """
    repo, revision = parse_name(name)
    return download(repo, revision, offline=offline, progress=progress, for_text=for_text).path


def download(
    repo: str,
    revision: str,
    *,
    force: bool = False,
    offline: bool = False,
    progress: Progress = ignore,
    for_text: bool = False,
) -> CachedModel:
    """The model on disk. It is downloaded if it is missing, or with `force`. See `resolve` for `for_text`.

    Files that the Hugging Face cache holds are taken from there, except with `force`. Offline, this is done for the
    published models only: the files of other models are not known without the Hub.

    Raises UsageError for an HF_ENDPOINT that is not an address; NetworkError if the Hub does not answer, refuses, or
    sends an invalid answer; CheckpointError if the bytes do not match their digest, or the repository has no
    safetensors; ResourceError if the disk is too small.
    """
    found = None if force else model_cache.find(repo, revision)
    if found:
        model_cache.sweep_if_idle(repo)
        return found
    model = short_name(repo) + suffix_of(revision)
    source, waiting = Remote(repo, revision, progress), Note(f"another process is downloading {model}: waiting for it")
    if offline or is_offline():
        if not force and (found := _take_offline(source, lambda: progress(waiting))):
            return found
        why = f"{'' if force else 'it is not on disk and '}the network is off (--offline or HF_HUB_OFFLINE)"
        raise NetworkError(f"cannot use {model}: {why}: go online once, or use --model tiny, which needs no network")
    with model_cache.lock(repo, lambda: progress(waiting)):
        # another process may have downloaded it in the meantime
        found = None if force else model_cache.find(repo, revision)
        try:
            return found or _download(source, force, for_text)
        except NetworkError as error:
            way_out = "; --model tiny needs no network" if isinstance(error, LastingError) else ""
            raise NetworkError(f"cannot fetch {model}: {error}{way_out}") from None


def download_from_dataset(wanted: DatasetFile, part: Path, *, progress: Progress = ignore) -> None:
    """Download a file of a *dataset* to `part`. Bytes that `part` already holds are kept.

    Raises NetworkError and CheckpointError as `download` does.
    """
    prepare_client()
    source = Remote(wanted.repo, wanted.revision, progress, "dataset")
    try:
        commit, file = source.head(wanted.name)
    except MissingFileError:
        where = f"the dataset {wanted.repo}{suffix_of(wanted.revision)}"
        raise NetworkError(f"{where} has no {wanted.name}, or it is empty: see the files on its page") from None
    fetch(file, part, partial(_pinned(source, commit).body, wanted.name), progress)


def upload(repo: str, files: list[Path], *, private: bool = False, progress: Progress = ignore) -> str:
    """Upload files to a repository, and return its address. A missing repository is created, private or public.

    Raises UsageError for a text that is not a repository's name, NetworkError if the Hub does not answer, or refuses.
    """
    name, revision = parse_name(repo)
    if is_offline():
        raise NetworkError("cannot upload: the network is off (HF_HUB_OFFLINE): unset that variable")
    prepare_client()
    return Remote(name, revision, progress).upload(files, private)


def _download(source: Remote, force: bool, for_text: bool) -> CachedModel:
    """Download a model's files and publish it in the cache. Files of this commit that are on disk are kept."""
    prepare_client()
    commit, config = source.head(CONFIG)
    _check_json(source, config)
    pinned = _pinned(source, commit)
    model_cache.sweep(source.repo, keep=commit)
    directory = model_cache.model_directory(source.repo, commit)
    tokenizer = [] if is_published(source.repo) else _tokenizer_files(pinned)
    whole = pinned.file(WEIGHTS)
    files = [config, *tokenizer, whole or _index(pinned)]
    if for_text and not is_published(source.repo):
        _download_missing(pinned, files[:-1], force)
        refuse(read_tokenizer(directory).other, source.repo)
    _download_missing(pinned, files, force)
    if not whole:
        shards = _shards(directory / INDEX, pinned)
        _download_missing(pinned, shards, force)
        files += shards
    return _publish(source, commit, files)


def _pinned(source: Remote, commit: str) -> Remote:
    """The repository at the commit of its revision. Raises NetworkError if the revision is another commit."""
    if COMMIT.fullmatch(source.revision) and commit != source.revision:
        raise NetworkError(f"{source.repo}: the server answers for another commit than asked: try again later")
    return replace(source, revision=commit)


def _publish(source: Remote, commit: str, files: list[RemoteFile]) -> CachedModel:
    """Record in the cache that all files of a commit are there, and return the model."""
    model_cache.publish(source.repo, source.revision, commit, files)
    shutil.rmtree(model_cache.staging_directory(source.repo, commit), ignore_errors=True)
    found = model_cache.find(source.repo, source.revision)
    if found is None:
        raise ResourceError(
            f"{source.repo} has disappeared after its download: see which program deletes files in {paths.models()}"
        )
    return found


def _take_offline(source: Remote, on_wait: Callable[[], None]) -> CachedModel | None:
    """A published model whose files are all in the Hugging Face cache and undamaged, else None."""
    if not is_published(source.repo):
        return None
    prepare_client()
    snapshot = hf_cache.find_snapshot(source.repo, source.revision, (CONFIG, WEIGHTS))
    if snapshot is None:
        return None
    commit, files = snapshot
    with model_cache.lock(source.repo, on_wait):
        return None if _take(replace(source, revision=commit), files) else _publish(source, commit, files)


def _tokenizer_files(source: Remote) -> list[RemoteFile]:
    """The tokenizer files of a repository, without those that are larger than MAX_JSON."""
    found = [file for name in FILES if (file := source.file(name))]
    if not any(file.name in VOCABULARIES for file in found):
        found += [file for name in OTHER_KINDS if (file := source.file(name))][:1]
    return [file for file in found if file.size <= MAX_JSON]


def _index(source: Remote) -> RemoteFile:
    """The index of weights in shards. Raises CheckpointError if the repository has no safetensors."""
    index = source.file(INDEX)
    if index is None:
        if any(source.file(name) for name in PICKLES):
            why = "has its weights as .bin only, a pickle that can run code"
            raise CheckpointError(f"{source.repo} {why}, refused: convert it to safetensors, or use another repository")
        raise CheckpointError(f"{source.repo} holds no {WEIGHTS}: use a repository with safetensors weights")
    _check_json(source, index)
    return index


def _check_json(source: Remote, file: RemoteFile) -> None:
    if file.size > MAX_JSON:
        raise CheckpointError(f"{source.repo}: {file.name} is too large ({file.size} bytes): use another repository")


def _shards(index: Path, source: Remote) -> list[RemoteFile]:
    """The files that an index names. Only plain names are accepted, as they become paths on this machine."""
    try:
        names = sorted({str(name) for name in parse_json(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{source.repo}: {INDEX} is not an index of weights: use another repository") from None
    bad = [name for name in names if not _SHARD.fullmatch(name)]
    if bad or not names:
        raise CheckpointError(
            f"{source.repo}: {INDEX} names {shown(bad[0]) if bad else 'no file'}, not plain .safetensors: refused"
        )
    if len(names) > MAX_SHARDS:
        raise CheckpointError(f"{source.repo}: {INDEX} names {len(names)} files, more than {MAX_SHARDS}: refused")
    return [source.head(name)[1] for name in names]


def _download_missing(source: Remote, files: list[RemoteFile], force: bool) -> None:
    """Download the files of a commit that are missing, or all with `force`.

    Each file is written in the staging directory, checked, and then moved.
    """
    target = model_cache.model_directory(source.repo, source.revision)
    staging = model_cache.staging_directory(source.repo, source.revision)
    missing = files if force else _take(source, files)
    model_cache.check_space(sum(file.size - size_of(staging / file.name) for file in missing))
    staging.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True)
    for file in missing:
        fetch(file, staging / file.name, partial(source.body, file.name), source.progress)
        (staging / file.name).replace(target / file.name)
        sync_directory(target)


def _take(source: Remote, files: list[RemoteFile]) -> list[RemoteFile]:
    """Take missing files of a commit from the Hugging Face cache. Returns the files that are still missing."""
    target = model_cache.model_directory(source.repo, source.revision)
    missing = [file for file in files if not matches(target / file.name, file)]
    target.mkdir(parents=True, exist_ok=True)
    taken = [file for file in missing if hf_cache.take(source.repo, source.revision, file, target / file.name)]
    if taken:
        model, size = short_name(source.repo), sum(file.size for file in taken)
        source.progress(Note(f"found in the Hugging Face cache: {model}, {size / 1e6:,.1f} MB"))
    return [file for file in missing if file not in taken]
