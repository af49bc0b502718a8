"""The models on disk: names, listing, removal, and what a killed run leaves."""

import threading
from pathlib import Path

import pytest

from gpt2cli.errors import UsageError
from gpt2cli.hub import model_cache
from gpt2cli.hub.resumable_download import RemoteFile
from tests.runner import PATIENCE

A, B = "a" * 40, "b" * 40


def nobody() -> None:
    pytest.fail("nobody else holds the lock")


def add(repo: str, revision: str, commit: str, content: bytes = b"weights") -> Path:
    directory = model_cache.repo_directory(repo) / commit
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.safetensors").write_bytes(content)
    model_cache.publish(repo, revision, commit, [RemoteFile("model.safetensors", len(content), "d" * 64)])
    return directory


def test_a_model_is_found_by_branch_and_by_commit(home: Path) -> None:
    directory = add("openai-community/gpt2", "main", A)
    model = model_cache.find("openai-community/gpt2", "main")
    assert model is not None
    assert (model.model, model.revision, model.path, model.bytes) == ("gpt2", "main", directory, 7)
    assert model.downloaded_at.endswith("+00:00")
    assert model_cache.find("openai-community/gpt2", A) is not None
    assert model_cache.find("openai-community/gpt2", B) is None
    assert model_cache.find("openai-community/gpt2", "v2") is None
    assert model_cache.find("owner/other", "main") is None


@pytest.mark.parametrize("damage", ["cut", "gone", "no manifest", "half a manifest", "nonsense", "bad ref"])
def test_a_model_that_is_not_whole_is_not_there(home: Path, damage: str) -> None:
    directory = add("owner/name", "main", A)
    weights, manifest = directory / "model.safetensors", directory / "manifest.json"
    if damage == "cut":
        weights.write_bytes(b"we")
    elif damage == "gone":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif damage == "nonsense":
        manifest.write_text("[1, 2]")
    else:
        (directory.parent / "refs" / "main").write_text("../../elsewhere")
    assert model_cache.find("owner/name", "main") is None
    assert [model.revision for model in model_cache.list_models()] == ([A] if damage == "bad ref" else [])


def test_a_commit_that_its_branch_left_is_listed_by_its_hash(home: Path) -> None:
    add("owner/name", "main", A)
    add("owner/name", "main", B)
    assert {(model.revision, model.path.name) for model in model_cache.list_models()} == {(A, A), ("main", B)}


def test_removing_one_revision_leaves_the_others(home: Path) -> None:
    gone = add("owner/name", "v1", A)
    stays = add("owner/name", "main", B)
    removed = model_cache.remove("owner/name", "v1", nobody)
    assert [model.path for model in removed] == [gone]
    assert not gone.exists()
    assert [model.path for model in model_cache.list_models()] == [stays]
    assert sorted(path.name for path in (stays.parent / "refs").iterdir()) == ["main"]


def test_removing_a_model_leaves_nothing_of_it(home: Path) -> None:
    directory = add("owner/name", "main", A)
    add("owner/name", "v1", B)
    (directory.parent / ".staging" / A).mkdir(parents=True)
    other = add("owner/other", "main", A)
    assert len(model_cache.remove("owner/name", None, nobody)) == 2
    assert [path.name for path in (home / "models").glob("[!.]*")] == ["owner--other"]
    assert not list((home / "models").glob(".trash*"))
    assert [model.path for model in model_cache.list_models()] == [other]


def test_what_is_not_there_cannot_be_removed(home: Path) -> None:
    add("owner/name", "main", A)
    for repo, revision in (("owner/other", None), ("owner/name", "v1")):
        with pytest.raises(UsageError, match=r"not on disk.*owner/name@main"):
            model_cache.remove(repo, revision, nobody)
    assert len(model_cache.list_models()) == 1


def test_half_a_download_can_be_removed(home: Path) -> None:
    staging = model_cache.repo_directory("owner/name") / ".staging" / A
    staging.mkdir(parents=True)
    assert model_cache.remove("owner/name", None, nobody) == []
    assert not staging.exists()


def test_sweeping_takes_leftovers_and_no_model(home: Path) -> None:
    model = add("owner/name", "main", A)
    repo = model.parent
    leftovers = [repo / ".staging" / A, repo / ("c" * 40), home / "models" / ".trash-123"]
    current = [repo / ".staging" / B, repo / B]
    for path in leftovers + current:
        path.mkdir(parents=True)
        (path / "file").touch()
    model_cache.sweep("owner/name", keep=B)
    assert not any(path.exists() for path in leftovers)
    assert all((path / "file").exists() for path in current)
    assert model_cache.find("owner/name", "main") is not None


def test_half_written_manifests_and_refs_are_swept(home: Path) -> None:
    repo = add("owner/name", "main", A).parent
    leftovers = [repo / "refs" / ".main.x1y2.tmp", repo / A / ".manifest.json.x1y2.tmp"]
    for path in leftovers:
        path.write_text("half")
    leftovers += [repo / "refs" / ".main.0a1b2c3d.tmp", repo / A / ".manifest.json.0a1b2c3d.tmp"]
    for path in leftovers[2:]:
        path.mkdir()
        (path / "new").write_text("half")
    model_cache.sweep_if_idle("owner/name")
    assert not any(path.exists() for path in leftovers)
    model = model_cache.find("owner/name", "main")
    assert model is not None
    assert model.path == repo / A


def test_the_lock_keeps_others_waiting_and_tells_them_once(home: Path) -> None:
    waiting = threading.Event()
    order: list[str] = []

    def wait() -> None:
        order.append("told")
        waiting.set()

    def other() -> None:
        with model_cache.lock("owner/name", wait):
            order.append("second")

    with model_cache.lock("owner/name", nobody):
        thread = threading.Thread(target=other)
        thread.start()
        assert waiting.wait(PATIENCE)
        order.append("first")
    thread.join(PATIENCE)
    assert order == ["told", "first", "second"]
    with model_cache.lock("owner/name", nobody):
        pass


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{", b'{"files":' * 100_000, b"\xff", b"1" * 5000], ids=range(6))
def test_a_damaged_manifest_is_none(home: Path, damage: bytes) -> None:
    model = add("owner/name", "main", A)
    (model / "manifest.json").write_bytes(damage)
    assert model_cache.find("owner/name", "main") is None
    assert model_cache.list_models() == []
