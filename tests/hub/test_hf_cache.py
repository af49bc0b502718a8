"""Files of the Hugging Face cache are used instead of downloads. The Hub's own client fills that cache here."""

import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download

from gpt2cli.errors import NetworkError, ResourceError
from gpt2cli.hub import hf_cache, model_cache, models, resumable_download
from gpt2cli.hub.resumable_download import RemoteFile
from gpt2cli.progress import Note, Received
from tests.hub_server import COMMIT, HubServer

REPO, CONFIG, WEIGHTS = "openai-community/gpt2", "config.json", "model.safetensors"


@pytest.fixture
def cached(hub: HubServer) -> Path:
    """The blob of the weights in a cache that holds the whole model."""
    for name in hub.files:
        path = Path(hf_hub_download(hub.repo, name))
    hub.log.clear()
    return path.resolve()


def state_of(directory: Path) -> dict[Path, tuple[bytes, int, int]]:
    """All files below a directory: their contents, permissions and times."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in files}


def test_what_is_there_is_linked_and_not_downloaded(hub: HubServer, cached: Path) -> None:
    events: list[Received | Note] = []
    before = state_of(Path(constants.HF_HUB_CACHE))
    path = models.resolve("gpt2", progress=events.append)
    assert {name: (path / name).read_bytes() for name in hub.files} == hub.files
    assert {method for method, _, _ in hub.log} == {"HEAD"}
    assert events == [Note("found in the Hugging Face cache: gpt2, 0.3 MB")]
    assert (path / WEIGHTS).samefile(cached) and not (path / WEIGHTS).is_symlink()
    assert models.resolve("gpt2", offline=True) == path
    assert {file.name for file in path.iterdir()} == {*hub.files, "manifest.json"}
    # whatever happens to the model, the cache stays as it was
    models.download(REPO, "main", force=True)
    assert hub.requests("GET", WEIGHTS) == [None] and not (path / WEIGHTS).samefile(cached)
    model_cache.remove(REPO, None, lambda: None)
    models.resolve("gpt2")
    model_cache.remove(REPO, None, lambda: None)
    assert state_of(Path(constants.HF_HUB_CACHE)) == before


def test_a_cache_of_the_name_without_its_owner_and_of_another_commit_will_do(hub: HubServer, cached: Path) -> None:
    repo = cached.parent.parent
    repo.rename(repo.with_name("models--gpt2"))
    hub.commit = "9" * 40
    assert (models.resolve("gpt2") / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert {method for method, _, _ in hub.log} == {"HEAD"}


def test_a_repository_brings_its_tokenizer_from_there_too(hub: HubServer) -> None:
    hub.repo, hub.files = "owner/name", hub.files | {"vocab.json": b'{"a": 0}', "merges.txt": b"a b\n"}
    for name in hub.files:
        hf_hub_download(hub.repo, name)
    hub.log.clear()
    path = models.resolve("owner/name")
    assert {file.name for file in path.iterdir()} == {*hub.files, "manifest.json"}
    assert {method for method, _, _ in hub.log} == {"HEAD"}


def test_where_no_symbolic_links_are_made_files_are_in_the_snapshot(hub: HubServer, cached: Path) -> None:
    snapshot = cached.parent.parent / "snapshots" / COMMIT
    for name, content in hub.files.items():
        (snapshot / name).unlink()
        (snapshot / name).write_bytes(content)
    shutil.rmtree(cached.parent)
    # without names of blobs, nothing tells offline what the bytes should be
    with pytest.raises(NetworkError, match="not on disk"):
        models.resolve("gpt2", offline=True)
    assert (models.resolve("gpt2") / WEIGHTS).samefile(snapshot / WEIGHTS)
    assert {method for method, _, _ in hub.log} == {"HEAD"}


@pytest.mark.parametrize("why", ["no links", "permissions", "file system"])
def test_what_cannot_be_linked_is_copied(
    hub: HubServer, cached: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no")

    if why == "permissions":
        cached.chmod(0o600)
    elif why == "no links":
        monkeypatch.setattr(os, "link", refuse)
    else:
        link = hf_cache._link
        monkeypatch.setattr(hf_cache, "_link", lambda blob, target: blob != cached and link(blob, target))
    path = models.resolve("gpt2")
    assert (path / WEIGHTS).read_bytes() == hub.files[WEIGHTS] and not (path / WEIGHTS).samefile(cached)
    umask = os.umask(0o022)
    os.umask(umask)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o666 & ~umask}
    assert {method for method, _, _ in hub.log} == {"HEAD"}
    assert {file.name for file in path.iterdir()} == {*hub.files, "manifest.json"}


def test_there_is_to_be_room_for_a_copy(hub: HubServer, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached.chmod(0o600)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=250_000))
    with pytest.raises(ResourceError, match=r"0\.3 MB are needed"):
        models.resolve("gpt2")
    cached.chmod((cached.parent.parent / "refs" / "main").stat().st_mode & 0o777)
    assert models.resolve("gpt2").exists()  # a link needs none


@pytest.mark.parametrize("damage", ["bytes", "cut", "gone", "a directory"])
def test_what_is_damaged_is_downloaded(hub: HubServer, cached: Path, damage: str) -> None:
    if damage == "bytes":
        cached.write_bytes(bytes(cached.stat().st_size))
    elif damage == "cut":
        cached.write_bytes(cached.read_bytes()[:1000])
    else:
        cached.unlink()
    if damage == "a directory":
        cached.mkdir()
    before = state_of(cached.parent)
    with pytest.raises(NetworkError, match="not on disk"):
        models.resolve("gpt2", offline=True)
    assert model_cache.list_models() == []
    path = models.resolve("gpt2")
    assert {name: (path / name).read_bytes() for name in hub.files} == hub.files
    assert hub.requests("GET", WEIGHTS) == [None] and hub.requests("GET", CONFIG) == []
    assert state_of(cached.parent) == before


@pytest.mark.parametrize("damage", ["no text", "no directory"])
def test_a_damaged_cache_is_treated_like_an_empty_one(hub: HubServer, cached: Path, damage: str) -> None:
    repo = cached.parent.parent
    if damage == "no text":
        (repo / "refs" / "main").write_bytes(b"\xff\xfe")
    else:
        shutil.rmtree(repo / "snapshots")
        (repo / "snapshots").touch()
    with pytest.raises(NetworkError, match="not on disk"):
        models.resolve("gpt2", offline=True)
    assert (models.resolve("gpt2") / WEIGHTS).samefile(cached)


def test_a_file_that_grows_while_it_is_checked_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "blob").write_bytes(b"abc")

    def grow(file: RemoteFile) -> Any:
        (tmp_path / "blob").write_bytes(b"abcdef")
        return hashlib.sha256()

    monkeypatch.setattr(resumable_download, "_new_digest", grow)
    assert not resumable_download.matches(file, RemoteFile("blob", 3, "0" * 64))
    assert file.read_bytes() == b"abcdef"


def test_a_published_model_is_taken_without_the_network(hub: HubServer, cached: Path) -> None:
    events: list[Received | Note] = []
    for name in (f"gpt2@{COMMIT}", "gpt2"):
        path = models.resolve(name, offline=True, progress=events.append)
        assert path.name == COMMIT and (path / WEIGHTS).samefile(cached)
        assert {name: (path / name).read_bytes() for name in hub.files} == hub.files
    assert hub.log == [] and events[0] == Note("found in the Hugging Face cache: gpt2, 0.3 MB")
    with pytest.raises(NetworkError, match="the network is off"):
        models.download(REPO, "main", force=True, offline=True)
    with pytest.raises(NetworkError, match="not on disk"):
        models.resolve("gpt2@v9", offline=True)


def test_of_another_repository_nobody_knows_offline_whether_it_is_whole(hub: HubServer) -> None:
    hub.repo = "owner/name"
    for name in hub.files:
        hf_hub_download(hub.repo, name)
    with pytest.raises(NetworkError, match="not on disk"):
        models.resolve("owner/name", offline=True)
