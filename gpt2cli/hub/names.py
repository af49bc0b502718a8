"""Names of models and of files in datasets. Each is for a repository on the Hugging Face Hub and a revision of it."""

import re
from typing import NamedTuple

from gpt2cli.errors import UsageError
from gpt2cli.published import PUBLISHED, TINY
from gpt2cli.suggestions import advise, did_you_mean

DEFAULT_REVISION = "main"
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
"""The files of a model in a repository. Weights in shards have an index."""
COMMIT = re.compile(r"[0-9a-f]{40}")
_OTHER_NAMES = dict.fromkeys(("gpt2small", "gpt2s", "gpt2base", "gpt2124m", "124m"), "gpt2") | {
    **dict.fromkeys(("gpt2m", "gpt2355m"), "gpt2-medium"),
    **dict.fromkeys(("gpt2l", "gpt2774m"), "gpt2-large"),
    **dict.fromkeys(("gpt215b", "gpt21558m"), "gpt2-xl"),
}
"""What people call the published models elsewhere."""
DATASET_PREFIX = "hf:"
"""The start of the name of a file in a dataset."""
DATASET_FORM = f"{DATASET_PREFIX}owner/name[@revision]/path/file.jsonl"
LONGEST_PATH = 200
_DATASET_FILE = re.compile(r"([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")
_PATH = re.compile(r"\w[\w .+=,()-]*(?:/\w[\w .+=,()-]*)*", re.ASCII)
_REPO = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"\w[\w./+-]{0,99}", re.ASCII)


def parse_name(name: str) -> tuple[str, str]:
    """The repository and the revision of `gpt2` or another published name, or of `owner/name[@revision]`.

    Raises UsageError for anything else. A name becomes part of paths and addresses, so only plain characters are
    allowed in it.
    """
    if name == TINY:
        raise UsageError("tiny comes with gpt2cli and needs no download: use --model tiny")
    base, at, revision = name.partition("@")
    repo = PUBLISHED[base].repo if base in PUBLISHED else base
    if not _is_repo(repo) or (at and not _is_revision(revision)):
        known = [TINY, *PUBLISHED]
        guess = did_you_mean(name[:200], known, _OTHER_NAMES)
        names = "" if guess else f"{', '.join(known)}, "
        advice = advise(guess, f"give {names}a Hub repository as owner/name[@revision], or a directory")
        raise UsageError(f"{name[:200]!r} is not a model: {advice}")
    return repo, revision or DEFAULT_REVISION


class DatasetFile(NamedTuple):
    """A file of a dataset. `name` is its path in the repository."""

    repo: str
    revision: str
    name: str


def parse_dataset_file(text: str) -> DatasetFile:
    """The file that a name in DATASET_FORM means. The name must start with DATASET_PREFIX.

    A revision with a slash cannot be named. Raises UsageError for another form.
    """
    rest = text.removeprefix(DATASET_PREFIX)
    if file := _dataset_file(rest):
        return file
    plain = re.sub(r"^/*(?:datasets/)?", "", rest)  # as the Hub's own client writes it
    plain = re.sub(r"^([^/]+/[^/]+)/(?:blob|resolve)/([^/]+)/", r"\1@\2/", plain)  # as in addresses of its pages
    guess = f"did you mean {DATASET_PREFIX}{plain}?" if plain != rest and _dataset_file(plain) else ""
    raise UsageError(f"{text[:200]!r} names no file of a dataset: {advise(guess, f'write {DATASET_FORM}')}")


def _dataset_file(text: str) -> DatasetFile | None:
    match = _DATASET_FILE.fullmatch(text)
    if match is None:
        return None
    repo, revision, name = match.groups()
    if not _is_repo(repo) or repo.startswith("datasets/") or (revision and not _is_revision(revision)):
        return None
    return DatasetFile(repo, revision or DEFAULT_REVISION, name) if _is_path(name) else None


def _is_path(text: str) -> bool:
    return len(text) <= LONGEST_PATH and bool(_PATH.fullmatch(text)) and not text.startswith(("blob/", "resolve/"))


def check_revision(revision: str) -> str:
    """Return the revision (a branch, tag or commit) if it is well formed, else raise UsageError."""
    if not _is_revision(revision):
        raise UsageError(f"{revision[:200]!r} is not a revision: give a branch, a tag or a commit, such as main")
    return revision


def short_name(repo: str) -> str:
    """The published name of a repository, or the repository's full name if it has none."""
    return next((name for name, published in PUBLISHED.items() if published.repo == repo), repo)


def suffix_of(revision: str) -> str:
    """The part of a model's name that gives the revision. It is empty for the default revision."""
    return "" if revision == DEFAULT_REVISION else f"@{revision}"


def is_published(repo: str) -> bool:
    """Whether a repository holds one of the published models. Their tokenizer is GPT-2's by definition."""
    return short_name(repo) in PUBLISHED


def _is_repo(text: str) -> bool:
    return bool(_REPO.fullmatch(text)) and "--" not in text and ".." not in text


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text
