"""Downloads from a Hub that sends wrong answers, breaks off, hangs or refuses."""

import errno
import json
import os
import random
import shutil
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt2cli.errors import CheckpointError, NetworkError, ResourceError, UsageError
from gpt2cli.hub import model_cache, models, resumable_download
from gpt2cli.hub.http_errors import refusal
from gpt2cli.hub.resumable_download import TemporaryError
from gpt2cli.progress import Note, Received
from tests.hub_server import COMMIT, Faults, HubServer

REPO = "openai-community/gpt2"
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each pause between tries would have been."""
    slept: list[float] = []
    monkeypatch.setattr(resumable_download, "sleep", slept.append)
    return slept


def written(home: Path) -> set[str]:
    """Every file under the test's directory, short of locks."""
    return {path.name for path in home.parent.rglob("*") if path.is_file() and path.suffix != ".lock"}


def part() -> Path:
    return model_cache.repo_directory(REPO) / ".staging" / COMMIT / WEIGHTS


def test_a_model_is_fetched_once_and_whole(hub: HubServer, home: Path) -> None:
    events: list[Received | Note] = []
    path = models.resolve("gpt2", progress=events.append)
    assert {name: (path / name).read_bytes() for name in hub.files} == hub.files
    assert events[-1] == Received(WEIGHTS, 300_000, 300_000)
    assert written(home) == {"config.json", WEIGHTS, "manifest.json", "main"}
    assert not part().parent.exists()
    requests = len(hub.log)
    for name in ("gpt2", REPO, f"gpt2@{COMMIT}"):
        assert models.resolve(name) == path
    assert len(hub.log) == requests


def test_the_token_does_not_follow_to_where_the_bytes_are(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.elsewhere = True
    hub.faults[WEIGHTS] = Faults(truncate_at=200_000, truncate_times=1)
    assert (models.resolve("gpt2") / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert (hub.authorizations, hub.authorizations_elsewhere) == ({"Bearer hf_secret"}, {None})
    assert hub.requests("GET", WEIGHTS)[-1] == "bytes=200000-"


def test_shards_are_fetched_by_their_index(hub: HubServer) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"wte": shards[0], "wpe": shards[1], "h": shards[0]}}).encode()
    hub.files = {"config.json": b"{}", "model.safetensors.index.json": index, shards[0]: b"one", shards[1]: b"two"}
    path = models.resolve("gpt2")
    assert {name: (path / name).read_bytes() for name in hub.files} == hub.files
    model = model_cache.find(REPO, "main")
    assert model is not None
    assert model.bytes == sum(map(len, hub.files.values()))


@pytest.mark.parametrize("name", ["../evil.safetensors", "/tmp/x.safetensors", "a/b.safetensors", "x.bin", "..", "a\n"])
def test_an_index_cannot_name_files_elsewhere(hub: HubServer, home: Path, name: str) -> None:
    index = json.dumps({"weight_map": {"wte": name}}).encode()
    hub.files = {"config.json": b"{}", "model.safetensors.index.json": index}
    with pytest.raises(CheckpointError, match="refused"):
        models.resolve("gpt2")
    assert written(home) == {"config.json", "model.safetensors.index.json"}
    assert model_cache.list_models() == []


def test_a_name_in_an_index_is_shown_shortly(hub: HubServer) -> None:
    index = json.dumps({"weight_map": {"wte": "x" * 100_000}}).encode()
    hub.files = {"config.json": b"{}", "model.safetensors.index.json": index}
    with pytest.raises(CheckpointError, match="not plain") as error:
        models.resolve("gpt2")
    assert len(str(error.value)) < 300


def test_an_index_names_a_thousand_files_at_the_most(hub: HubServer) -> None:
    for number, says in ((1001, r"names 1001 files, more than 1000: refused"), (1000, "has no w-0.safetensors")):
        index = {"weight_map": {str(i): f"w-{i}.safetensors" for i in range(number)}}
        hub.files = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()}
        with pytest.raises((CheckpointError, NetworkError), match=says):
            models.resolve("gpt2")
    assert len(hub.log) < 20


TOKENIZER = {
    "tokenizer.json": b'{"model": {}}',
    "vocab.json": b'{"a": 0}',
    "merges.txt": b"#version: 0.2\na b\n",
    "tokenizer_config.json": b"{}",
    "added_tokens.json": b'{"b": 1}',
}


def test_a_repository_brings_its_tokenizer_and_is_refused_for_text_before_its_weights(hub: HubServer) -> None:
    hub.repo, hub.files = "owner/name", hub.files | TOKENIZER | {"pytorch_model.bin": b"old", "README.md": b"#"}
    with pytest.raises(CheckpointError, match=r"owner/name was made for another tokenizer"):
        models.resolve("owner/name", for_text=True)
    assert hub.requests("GET", WEIGHTS) == []
    assert model_cache.list_models() == []
    path = models.resolve("owner/name")
    assert {file.name for file in path.iterdir()} == {"config.json", WEIGHTS, "manifest.json", *TOKENIZER}
    requests = len(hub.log)
    assert models.resolve("owner/name", offline=True) == path
    assert len(hub.log) == requests


def test_a_vocabulary_of_another_kind_is_brought_where_there_is_no_other(hub: HubServer) -> None:
    hub.repo, hub.files = "owner/name", hub.files | {"spiece.model": b"binary"}
    with pytest.raises(CheckpointError, match=r"its vocabulary is spiece\.model"):
        models.resolve("owner/name", for_text=True)
    assert (models.resolve("owner/name") / "spiece.model").read_bytes() == b"binary"


def test_a_tokenizer_file_beyond_all_measure_is_left(hub: HubServer) -> None:
    hub.repo, hub.files = "owner/name", hub.files | {"vocab.json": bytes(2**24 + 1), "merges.txt": b"a b"}
    assert {file.name for file in models.resolve("owner/name").iterdir()} >= {"merges.txt", WEIGHTS}
    assert hub.requests("GET", "vocab.json") == []


def test_an_empty_tokenizer_file_is_as_good_as_none(hub: HubServer) -> None:
    hub.repo, hub.files = "owner/name", hub.files | {"merges.txt": b"", "vocab.json": b"", "vocab.txt": b"[PAD]"}
    there = {file.name for file in models.resolve("owner/name").iterdir()}
    assert there == {"config.json", WEIGHTS, "manifest.json", "vocab.txt"}


def test_an_empty_config_is_refused(hub: HubServer, home: Path) -> None:
    hub.files["config.json"] = b""
    with pytest.raises(NetworkError, match=r"config\.json is empty"):
        models.resolve("gpt2")
    assert written(home) == set()


def test_the_published_models_need_no_more_requests_for_text(hub: HubServer) -> None:
    hub.files |= TOKENIZER
    path = models.resolve("gpt2", for_text=True)
    assert {file.name for file in path.iterdir()} == {"config.json", WEIGHTS, "manifest.json"}
    assert {name for _, name, _ in hub.log} == {"config.json", WEIGHTS}


def test_a_model_that_was_fetched_without_its_tokenizer_goes_on_working(hub: HubServer) -> None:
    hub.repo = "owner/name"
    path = models.resolve("owner/name")
    hub.files |= TOKENIZER
    for offline in (True, False):
        assert models.resolve("owner/name", offline=offline, for_text=True) == path
    assert hub.requests("GET", "vocab.json") == []


@pytest.mark.parametrize("index", [b" ", b"[]", b'{"weight_map": {}}', b'{"weight_map": [1]}', b"[" * 100_000])
def test_an_index_that_is_none(hub: HubServer, index: bytes) -> None:
    hub.files = {"config.json": b"{}", "model.safetensors.index.json": index}
    with pytest.raises(CheckpointError, match="index"):
        models.resolve("gpt2")


@pytest.mark.parametrize(
    "lie",
    [
        {"X-Repo-Commit": "../../x"},
        {"X-Repo-Commit": "A" * 40},
        {"X-Repo-Commit": ""},
        {"X-Linked-Etag": '"../../x"'},
        {"X-Linked-Etag": '"' + "a" * 63 + '"'},
        {"X-Linked-Size": "-1"},
        {"X-Linked-Size": "0"},
        {"X-Linked-Size": str(10**18)},
        {"X-Linked-Size": "many"},
        {"X-Repo-Commit": "f" * 40},
    ],
)
def test_headers_that_make_no_sense(hub: HubServer, home: Path, lie: dict[str, str]) -> None:
    hub.faults[WEIGHTS] = Faults(headers=lie)
    with pytest.raises(NetworkError):
        models.resolve("gpt2")
    assert written(home) == set()


def test_a_commit_or_etag_that_is_a_path(hub: HubServer, home: Path) -> None:
    for lie in ({"X-Repo-Commit": "../../x"}, {"ETag": '"../../x"'}):
        hub.faults["config.json"] = Faults(headers=lie)
        with pytest.raises(NetworkError, match="not a hash"):
            models.resolve("gpt2")
    assert written(home) == set()


def test_a_pinned_commit_is_not_swapped_for_another(hub: HubServer, home: Path) -> None:
    wanted = "e" * 40
    hub.commit, hub.faults["config.json"] = wanted, Faults(headers={"X-Repo-Commit": COMMIT})
    with pytest.raises(NetworkError, match="another commit"):
        models.resolve(f"gpt2@{wanted}")
    assert written(home) == set()


@pytest.mark.parametrize(("name", "kind"), [(WEIGHTS, "sha256"), ("config.json", "sha1")])
def test_wrong_bytes_of_the_right_size(hub: HubServer, home: Path, name: str, kind: str) -> None:
    hub.faults[name] = Faults(body=bytes(len(hub.files[name])))
    with pytest.raises(CheckpointError, match=f"{name}: {kind} mismatch"):
        models.resolve("gpt2")
    assert name not in written(home)
    assert len(hub.requests("GET", name)) == 1


def test_a_forced_download_keeps_the_old_file_unless_the_new_one_is_right(hub: HubServer) -> None:
    path = models.resolve("gpt2")
    hub.faults[WEIGHTS] = Faults(body=bytes(300_000))
    with pytest.raises(CheckpointError, match="mismatch"):
        models.download(REPO, "main", force=True)
    assert (path / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert models.resolve("gpt2", offline=True) == path
    hub.faults.clear()
    (path / WEIGHTS).write_bytes(bytes(300_000))
    assert models.download(REPO, "main", force=True).path == path
    assert (path / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_server_that_sends_too_much(hub: HubServer, home: Path) -> None:
    hub.faults[WEIGHTS] = Faults(body=hub.files[WEIGHTS] + b"more")
    with pytest.raises(CheckpointError, match="more than"):
        models.resolve("gpt2")
    assert WEIGHTS not in written(home)


def test_a_body_cut_short_is_resumed_at_once(hub: HubServer, naps: list[float]) -> None:
    hub.faults[WEIGHTS] = Faults(truncate_at=100_000, truncate_times=2)
    path = models.resolve("gpt2")
    assert (path / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert hub.requests("GET", WEIGHTS) == [None, "bytes=100000-", "bytes=200000-"]
    assert naps == [0.5, 0.5]  # each try brought something


def test_a_line_that_drops_often_is_no_reason_to_give_up(hub: HubServer) -> None:
    hub.faults[WEIGHTS] = Faults(truncate_at=30_000)
    assert (models.resolve("gpt2") / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert len(hub.requests("GET", WEIGHTS)) == 10


def test_a_server_without_ranges_that_always_drops_is_given_up(hub: HubServer) -> None:
    hub.faults[WEIGHTS] = Faults(truncate_at=100_000, ignore_range=True)
    with pytest.raises(NetworkError, match="got 100000 of 300000 bytes"):
        models.resolve("gpt2")


def test_what_the_caller_raises_in_mid_body_stays_what_it_is(hub: HubServer, home: Path) -> None:
    def progress(event: Received | Note) -> None:
        if isinstance(event, Received) and event.done:
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        models.resolve("gpt2", progress=progress)


def test_a_config_beyond_all_measure_is_not_fetched(hub: HubServer, home: Path) -> None:
    hub.files["config.json"] = bytes(2**24 + 1)
    with pytest.raises(CheckpointError, match=r"config\.json is too large"):
        models.resolve("gpt2")
    assert written(home) == set()


def test_what_an_interrupted_force_left_goes_with_the_next_use(hub: HubServer) -> None:
    path = models.resolve("gpt2")
    part().parent.mkdir(parents=True)
    part().write_bytes(b"half")
    with model_cache.lock(REPO, lambda: None):
        assert models.resolve("gpt2") == path
        assert part().exists()
    assert models.resolve("gpt2") == path
    assert not part().exists()


@pytest.mark.parametrize("endpoint", ["http://[", "foo", "", "ftp://x", "http://a b", "http://a:99999"])
def test_an_endpoint_that_is_no_address(
    home: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float], endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UsageError, match=r"HF_ENDPOINT is .*not an address"):
        models.resolve("gpt2")
    assert naps == []


def test_a_body_always_cut_short_is_resumed_by_a_later_run(hub: HubServer) -> None:
    def progress(event: Received | Note) -> None:
        if isinstance(event, Received) and event.done == 5000:
            hub.faults[WEIGHTS] = Faults(truncate_at=0)

    hub.faults[WEIGHTS] = Faults(truncate_at=5000)
    with pytest.raises(NetworkError, match="got 5000 of 300000 bytes"):
        models.resolve("gpt2", progress=progress)
    assert part().read_bytes() == hub.files[WEIGHTS][:5000]
    hub.faults.clear()
    hub.log.clear()
    path = models.resolve("gpt2")
    assert (path / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert hub.requests("GET", WEIGHTS) == ["bytes=5000-"]
    assert hub.requests("GET", "config.json") == []


def test_a_server_without_ranges_starts_over(hub: HubServer) -> None:
    hub.faults[WEIGHTS] = Faults(truncate_at=100_000, truncate_times=1, ignore_range=True)
    path = models.resolve("gpt2")
    assert (path / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert len(hub.requests("GET", WEIGHTS)) == 2


@pytest.mark.parametrize("size", [1000, 300_000, 400_000])
def test_a_spoilt_remainder_is_thrown_away(hub: HubServer, size: int) -> None:
    part().parent.mkdir(parents=True)
    part().write_bytes(bytes(size))
    path = models.resolve("gpt2")
    assert (path / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_server_in_trouble_is_tried_five_times(hub: HubServer, naps: list[float], method: str, status: int) -> None:
    hub.faults[WEIGHTS] = Faults(status=status, status_methods=(method,))
    with pytest.raises(NetworkError, match=f"HTTP {status}.*after 5 tries"):
        models.resolve("gpt2")
    assert len(hub.requests(method, WEIGHTS)) == 5
    assert naps == [0.5, 1.0, 2.0, 4.0]


def test_a_server_that_recovers(hub: HubServer) -> None:
    for name in hub.files:
        hub.faults[name] = Faults(status=503, status_times=3)
    events: list[Received | Note] = []
    assert (models.resolve("gpt2", progress=events.append) / WEIGHTS).exists()
    assert len([event for event in events if isinstance(event, Note) and "trying again" in event.text]) == 6


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("0", 0.0), ("9999", 60.0), ("soon", 0.5), ("", 0.5)])
def test_retry_after_is_honoured_and_capped(hub: HubServer, naps: list[float], value: str, seconds: float) -> None:
    hub.faults["config.json"] = Faults(status=429, status_times=1, headers={"Retry-After": value})
    models.resolve("gpt2")
    assert naps == [seconds]


def test_retry_after_may_be_a_date(hub: HubServer, naps: list[float]) -> None:
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=20), usegmt=True)
    hub.faults[WEIGHTS] = Faults(status=429, status_times=1, status_methods=("GET",), headers={"Retry-After": soon})
    models.resolve("gpt2")
    assert naps == [pytest.approx(19, abs=2)]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no tzset")
def test_a_date_without_a_time_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        soon = format_datetime(datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=20))
        error = refusal(429, {"Retry-After": soon}, REPO, "main", WEIGHTS)
        assert isinstance(error, TemporaryError)
        assert error.wait == pytest.approx(19, abs=2)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_server_that_hangs(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.faults[WEIGHTS] = Faults(hang_at=0)
    with pytest.raises(NetworkError, match=r"got 0 of 300000 bytes \(no answer in time"):
        models.resolve("gpt2")


def test_a_cache_that_cannot_be_written_is_found_before_anything_is_asked(
    hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "models").write_text("")
    with pytest.raises(ResourceError, match=r"cannot make .*: set GPT2CLI_HOME to a directory that can be written"):
        models.resolve("gpt2")
    (home / "models").unlink()
    model_cache.repo_directory(REPO).parent.mkdir()
    model_cache.repo_directory(REPO).write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        models.resolve("gpt2")
    assert hub.log == []


@pytest.mark.parametrize(
    "value", ["Mon, 01 Jan 2024 00:00:00 +99999999999", "Mon, 01 Jan 99999 00:00:00 GMT", "9" * 5000, "\u0663", ""]
)
def test_retry_after_may_be_nonsense(value: str) -> None:
    wait = refusal(429, {"Retry-After": value}, REPO, "main", WEIGHTS).wait
    assert wait is None or wait >= 0


def test_a_server_that_is_not_there(hub: HubServer, monkeypatch: pytest.MonkeyPatch, naps: list[float]) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}")
    with pytest.raises(
        NetworkError,
        match=r"no connection to 127\.0\.0\.1 \(HF_ENDPOINT\) after 5 tries: .*--model tiny needs no network",
    ):
        models.resolve("gpt2")
    assert len(naps) == 4


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "", "does not exist, or is private"),
        (401, "GatedRepo", "is gated: accept its conditions"),
        (403, "GatedRepo", "is gated: accept its conditions"),
        (403, "", "may not be read with your token"),
        (404, "RepoNotFound", f"{REPO} does not exist"),
        (404, "RevisionNotFound", "has no revision main"),
        (404, "EntryNotFound", "has no config.json"),
        (404, "", "is not there"),
        (418, "", "HTTP 418"),
    ],
)
def test_refusals_say_why_and_never_the_token(
    hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, says: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    headers = {"X-Error-Code": code, "X-Error-Message": "token hf_secret is bad"}
    hub.faults["config.json"] = Faults(status=status, headers=headers)
    with pytest.raises(NetworkError, match=says) as caught:
        models.resolve("gpt2")
    assert "hf_secret" not in str(caught.value)
    assert "tiny" not in str(caught.value)  # the network is there
    assert hub.authorizations == {"Bearer hf_secret"}
    assert len(hub.log) == 1
    assert written(home) == set()


def test_what_the_hub_itself_says_of_a_name_that_is_not_there(hub: HubServer) -> None:
    for name, says in (("owner/name", "owner/name does not exist"), ("gpt2@v9", "no revision v9")):
        with pytest.raises(NetworkError, match=says):
            models.resolve(name)


@pytest.mark.parametrize("token", ["hf_\x07secret", "hf_sécret"])
def test_a_token_that_is_none(hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(NetworkError, match="HF_TOKEN holds") as caught:
        models.resolve("gpt2")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickles_are_refused(hub: HubServer, home: Path, name: str) -> None:
    hub.files = {"config.json": b"{}", name: b"\x80\x04"}
    with pytest.raises(CheckpointError, match=r"pickle.*refused.*convert"):
        models.resolve("gpt2")
    assert hub.requests("GET", name) == []
    assert written(home) == set()


def test_a_repository_without_weights(hub: HubServer) -> None:
    hub.files = {"config.json": b"{}"}
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        models.resolve("gpt2")


def test_a_disk_too_small_is_noticed_before_the_first_byte(
    hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=250_000))
    with pytest.raises(ResourceError, match=r"0\.3 MB are needed.*0\.2 MB are free"):
        models.resolve("gpt2")
    assert not [request for request in hub.log if request[0] == "GET"]
    assert written(home) == set()
    # what is there already needs no room
    part().parent.mkdir(parents=True)
    part().write_bytes(hub.files[WEIGHTS][:100_000])
    assert models.resolve("gpt2").exists()


def test_a_disk_that_fills_up_keeps_what_came(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def fills_up(handle: int, data: bytes) -> int:
        if part().exists() and part().stat().st_size >= 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:50_000])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fills_up)
        with pytest.raises(ResourceError, match=r"cannot write .*model.safetensors \(No space left"):
            models.resolve("gpt2")
    came = part().stat().st_size
    assert 100_000 <= came < 300_000
    assert part().read_bytes() == hub.files[WEIGHTS][:came]
    assert (models.resolve("gpt2") / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert hub.requests("GET", WEIGHTS) == [None, f"bytes={came}-"]


class Died(BaseException):
    """Stands for the end of the process."""


@pytest.mark.skipif(os.name != "posix", reason="directories are synced on POSIX only")
def test_dying_after_any_step_leaves_the_old_state_or_the_new(
    hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, replace = os.fsync, os.replace
    steps: list[str] = []
    last = 0

    def step(name: str) -> None:
        steps.append(name)
        if len(steps) == last:
            raise Died

    def fsync_step(handle: int) -> None:
        fsync(handle)
        step("fsync")

    def replace_step(source: Path, target: Path) -> None:
        replace(source, target)
        step(f"replace {target.name}")

    monkeypatch.setattr(os, "fsync", fsync_step)
    monkeypatch.setattr(os, "replace", replace_step)
    models.resolve("gpt2")
    files = ["config.json", WEIGHTS, "manifest.json", "main"]
    assert steps == [step for name in files for step in ("fsync", f"replace {name}", "fsync")]
    for last in range(1, 13):
        shutil.rmtree(home)
        steps.clear()
        with pytest.raises(Died):
            models.resolve("gpt2")
        assert bool(model_cache.find(REPO, "main")) == (last >= 11)
        path = models.resolve("gpt2")
        assert {name: (path / name).read_bytes() for name in hub.files} == hub.files
    assert len(hub.requests("GET", WEIGHTS)) == 13  # nothing that had come was fetched again


def test_offline_and_absent(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for offline, variable in ((True, "0"), (False, "1"), (False, "true"), (False, "yes"), (False, "on")):
        monkeypatch.setenv("HF_HUB_OFFLINE", variable)
        with pytest.raises(NetworkError, match=r"gpt2: it is not on disk.*--model tiny"):
            models.resolve("gpt2", offline=offline)
    assert hub.log == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert models.resolve("gpt2").exists()
    with pytest.raises(NetworkError, match="gpt2: the network is off"):
        models.download(REPO, "main", force=True, offline=True)


def test_a_branch_that_moved_on_is_followed_when_forced(hub: HubServer) -> None:
    old = models.resolve("gpt2")
    hub.commit, hub.files = "9" * 40, hub.files | {WEIGHTS: random.Random(1).randbytes(1000)}
    assert models.resolve("gpt2") == old
    new = models.download(REPO, "main", force=True).path
    assert new.name == "9" * 40
    assert (new / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert models.resolve("gpt2") == new
    assert models.resolve(f"gpt2@{COMMIT}") == old


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_files_follow_the_umask(hub: HubServer) -> None:
    before = os.umask(0o027)
    try:
        path = models.resolve("gpt2")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o640}
