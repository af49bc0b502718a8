"""Files in the user's Hugging Face cache, which need not be downloaded again.

transformers and other programs keep their downloads there:

    models--openai-community--gpt2/blobs/<digest>          the files
    models--openai-community--gpt2/snapshots/<commit>/     links to them, by the names of the files
    models--openai-community--gpt2/refs/main               the commit that `main` stood for

A file is used only if its bytes match its digest. This module never changes a file of that cache.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gpt2cli.atomic import replacing
from gpt2cli.hub import model_cache
from gpt2cli.hub.names import COMMIT, short_name
from gpt2cli.hub.resumable_download import DIGEST, RemoteFile, matches


def take(repo: str, commit: str, file: RemoteFile, target: Path) -> bool:
    """Make `target` a hard link to a file of the cache, or a copy of it. False if the cache has no undamaged one.

    A hard link shares its bytes with the cache: `target` may be replaced or deleted, but never written to. The file is
    copied if links are impossible there, as between file systems, or if its owner or permissions are not those of a
    new file. Raises ResourceError if the disk has no room for a copy.
    """
    return any(_link_or_copy(place, file, target) for place in _places(repo, commit, file))


def find_snapshot(repo: str, revision: str, names: Sequence[str]) -> tuple[str, list[RemoteFile]] | None:
    """The commit of a revision, and these files of it, without any request; None if the cache does not hold them all.

    The digest of each file is the name of its blob: the sha256 of a large file, git's sha1 of a small one. So a file is
    checked against what the Hub said when it was downloaded.
    """
    from huggingface_hub import try_to_load_from_cache

    for repo_id in _names_of(repo):
        with suppress(OSError, ValueError):  # a damaged cache is treated like an empty one
            paths = [try_to_load_from_cache(repo_id, name, revision=revision) for name in names]
            found = [Path(path) for path in paths if isinstance(path, str)]
            blobs = [path.resolve() for path in found]
            commits = {path.parent.name for path in found if COMMIT.fullmatch(path.parent.name)}
            if len(found) == len(names) and len(commits) == 1 and all(DIGEST.fullmatch(blob.name) for blob in blobs):
                files = [RemoteFile(name, at.stat().st_size, at.name) for name, at in zip(names, blobs, strict=True)]
                return commits.pop(), files
    return None


def _places(repo: str, commit: str, file: RemoteFile) -> Iterator[Path]:
    """The paths that a file can have in the cache. Without symbolic links, it is in the snapshot."""
    from huggingface_hub import constants

    for repo_id in _names_of(repo):
        directory = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
        yield directory / "blobs" / file.digest
        yield directory / "snapshots" / commit / file.name


def _names_of(repo: str) -> list[str]:
    """The names that a repository has on the Hub: the published models are also known without their owner."""
    return [*dict.fromkeys((repo, short_name(repo)))]


def _link_or_copy(place: Path, file: RemoteFile, target: Path) -> bool:
    """As `take`, for one place where the file can be. An unreadable file there is treated like a missing one."""
    try:
        if not matches(place, file):
            return False
        with replacing(target) as temporary:
            if not _link(place.resolve(), temporary):
                model_cache.check_space(file.size)
                shutil.copyfile(place, temporary)
    except OSError:
        return False
    return True


def _link(blob: Path, new: Path) -> bool:
    """Replace an empty new file by a hard link to a blob. False if links are impossible, or owner or mode differ."""
    empty, old = new.stat(), blob.stat()
    if (empty.st_dev, empty.st_uid, empty.st_mode) != (old.st_dev, old.st_uid, old.st_mode):
        return False
    link = new.with_name(f"{new.name}.link")
    with suppress(OSError):
        os.link(blob, link)
        link.replace(new)
        return True
    return False
