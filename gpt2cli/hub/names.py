"""Names of models, each for a repository on the Hugging Face Hub and a revision of it."""

import re

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
    is_repo = _REPO.fullmatch(repo) and "--" not in repo and ".." not in repo
    if not is_repo or (at and not _is_revision(revision)):
        known = [TINY, *PUBLISHED]
        guess = did_you_mean(name[:200], known, _OTHER_NAMES)
        names = "" if guess else f"{', '.join(known)}, "
        advice = advise(guess, f"give {names}a Hub repository as owner/name[@revision], or a directory")
        raise UsageError(f"{name[:200]!r} is not a model: {advice}")
    return repo, revision or DEFAULT_REVISION


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


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text
