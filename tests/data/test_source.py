"""Fetching records: from the Hub, from an address that breaks off and lies, from disk; kept for the next time."""

import gzip
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from gpt2cli.data import source
from gpt2cli.data.source import check_data, fetch_data, fetch_source
from gpt2cli.errors import CheckpointError, DataError, NetworkError, ResourceError, UsageError
from gpt2cli.hub import addresses
from gpt2cli.progress import Note, Received
from tests.data.records import RECORDS, write_json
from tests.hub_server import COMMIT, Faults, HubServer

CONTENT = json.dumps(RECORDS * 200).encode()
CLEANED_REPO, CLEANED_FILE = "yahma/alpaca-cleaned", "alpaca_data_cleaned.json"


@dataclass
class Web:
    """A web server with one file. Each answer is taken from `script`, and is a good one when that is empty."""

    script: list[str] = field(default_factory=list)
    content: bytes = CONTENT
    asked: int = 0
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def do_GET(self) -> None:
        self.web.asked += 1
        fault = self.web.script.pop(0) if self.web.script else ""
        if fault.isdecimal():
            self.send_response(int(fault))
            self.send_header("Retry-After", "0")
            self.end_headers()
        elif fault.startswith("length"):
            self.send_response(200)
            self.send_header("Content-Length", fault.removeprefix("length "))
            self.end_headers()
            self.wfile.write(self.web.content)
        elif fault.startswith(("http", "file", "/", ".")):
            self.send_response(302)
            self.send_header("Location", fault)
            self.end_headers()
        else:
            self.send_response(200)
            if fault != "no length":
                self.send_header("Content-Length", str(len(self.web.content)))
            self.end_headers()
            self.wfile.write(self.web.content[: 1000 if fault == "short" else None])


@pytest.fixture
def web(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr("gpt2cli.hub.resumable_download.DELAYS", (0.0, 0.0))
    found = Web()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": found})) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}/some%20dir/records.json"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        server.shutdown()


def left(home: Path) -> list[str]:
    return [path.name for path in (home / "datasets" / "downloads").glob("*") if not path.name.endswith(".lock")]


def test_cleaned_comes_from_the_hub_and_is_kept(hub: HubServer, home: Path) -> None:
    hub.repo, hub.files = CLEANED_REPO, {CLEANED_FILE: CONTENT}
    with pytest.raises(NetworkError, match=r"cannot use cleaned: it is not on disk .* or give a file of your own"):
        fetch_source("cleaned", offline=True)
    assert hub.log == []
    seen: list[Received | Note] = []
    file = fetch_source("cleaned", progress=seen.append)
    assert file.read_bytes() == CONTENT
    assert seen[-1] == Received(CLEANED_FILE, len(CONTENT), len(CONTENT))
    requests = len(hub.log)
    assert fetch_source("cleaned", offline=True, progress=seen.append) == file
    assert isinstance(seen[-1], Note)
    assert "downloaded before" in seen[-1].text
    assert len(hub.log) == requests
    assert left(home) == [file.name]


def test_cleaned_goes_on_where_it_broke_off(hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2cli.hub.resumable_download.DELAYS", ())
    hub.repo, hub.files = CLEANED_REPO, {CLEANED_FILE: CONTENT}
    hub.faults[CLEANED_FILE] = Faults(truncate_at=1000, truncate_times=1)
    with pytest.raises(NetworkError, match=f"got 1000 of {len(CONTENT)} bytes"):
        fetch_source("cleaned")
    assert fetch_source("cleaned").read_bytes() == CONTENT
    assert hub.requests("GET", CLEANED_FILE) == [None, "bytes=1000-"]


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_file_of_a_dataset_is_checked_and_kept(hub: HubServer, home: Path, revision: str) -> None:
    name = f"hf:owner/quiz{revision}/data/fragen.csv.gz"
    hub.repo, hub.files = "owner/quiz", {"data/fragen.csv.gz": gzip.compress(b"question,answer\na,b\n")}
    for fetch in (fetch_data, fetch_source):
        with pytest.raises(NetworkError, match=rf"cannot use {name}: it is not on disk"):
            fetch(name, offline=True)
    assert hub.log == []
    file = fetch_data(name)
    assert gzip.decompress(file.read_bytes()) == b"question,answer\na,b\n" and file.name.endswith("-fragen.csv.gz")
    requests = len(hub.log)
    assert [fetch_data(name, offline=True), fetch_source(name, offline=True)] == [file, file]
    assert len(hub.log) == requests and left(home) == [file.name]


def test_two_files_of_datasets_with_one_name_are_kept_apart(hub: HubServer, home: Path) -> None:
    hub.repo, hub.files = "owner/quiz", {name: name.encode() for name in ("a/train.txt", "b/train.txt", "train.txt")}
    kept = [fetch_data(f"hf:owner/quiz/{name}") for name in hub.files]
    assert [file.read_bytes() for file in kept] == [*hub.files.values()]


def test_what_a_dataset_does_not_hold(hub: HubServer, home: Path) -> None:
    hub.repo, hub.files = "owner/quiz", {"a.jsonl": CONTENT}
    for name, told in (
        ("hf:owner/other/a.jsonl", "owner/other does not exist"),
        ("hf:owner/quiz@v2/a.jsonl", "owner/quiz has no revision v2"),
        ("hf:owner/quiz/b.jsonl", "the dataset owner/quiz has no b.jsonl, or it is empty"),
    ):
        with pytest.raises(NetworkError, match=told):
            fetch_data(name)
    hub.faults["a.jsonl"] = Faults(body=CONTENT.replace(b"pear", b"pare"))
    with pytest.raises(CheckpointError, match=r"a\.jsonl: .* deleted it"):
        fetch_data("hf:owner/quiz/a.jsonl")
    hub.faults.clear()
    hub.commit = "f" * 40
    with pytest.raises(NetworkError, match="has no revision 0123"):
        fetch_data(f"hf:owner/quiz@{COMMIT}/a.jsonl")
    assert left(home) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf:a.jsonl", r"'hf:a\.jsonl' names no file of a dataset: write hf:owner/name\[@revision\]/path/file\.jsonl"),
        ("hf:owner/name", "names no file of a dataset: write hf:"),
        ("hf:owner/name/a.parquet", r"hf:owner/name/a\.parquet does not name a file of data: give the name of a"),
        ("hf://datasets/owner/name@v1/a.jsonl", r"did you mean hf:owner/name@v1/a\.jsonl\?"),
        ("hf:owner/name/blob/main/b/a.jsonl", r"did you mean hf:owner/name@main/b/a\.jsonl\?"),
        ("https://huggingface.co/datasets/o/n/blob/main/a.csv", r"did you mean hf:o/n@main/a\.csv\?"),
        ("http://example.org/a.json", "only https is allowed"),
        ("https://example.org/a.parquet", "does not name a file of data"),
    ],
)
def test_a_remote_name_is_checked_without_a_network(hub: HubServer, home: Path, name: str, told: str) -> None:
    for check in (check_data, fetch_data, fetch_source):
        with pytest.raises(UsageError, match=told):
            check(name)
    assert not home.exists() and hub.log == []


def test_data_at_an_address_is_fetched_without_a_key_in_its_name(web: Web) -> None:
    file = fetch_data(web.url)
    assert file.read_bytes() == CONTENT and fetch_data(web.url, offline=True) == file
    with pytest.raises(UsageError, match="is given with a query, which may hold a key") as error:
        fetch_data(web.url + "?key=secret")
    assert "secret" not in str(error.value)
    text, web.content = web.url.replace("records.json", "tale.txt"), b"Once upon a time."
    assert fetch_data(text).read_bytes() == b"Once upon a time."
    with pytest.raises(UsageError, match=r"tale\.txt does not name a file of data"):
        fetch_source(text)
    web.content = b"caf\xe9"
    with pytest.raises(DataError, match=r"other\.txt is not a file of data: the download is not valid UTF-8 at byte 3"):
        fetch_data(text.replace("tale", "other"))


def test_an_address_is_fetched_once(web: Web, home: Path) -> None:
    file = fetch_source(web.url + "?key=secret")
    assert file.read_bytes() == CONTENT
    assert file.name.endswith("-records.json")
    assert fetch_source(web.url + "?key=secret", offline=True) == file
    assert web.asked == 1
    assert fetch_source(web.url) != file
    assert len(left(home)) == 2


def test_redirections_are_followed(web: Web) -> None:
    web.script = [web.url + "?signed=1", "../other.json", "/third.json"]
    assert fetch_source(web.url).read_bytes() == CONTENT
    assert web.asked == 4


def test_a_size_that_is_not_announced(web: Web) -> None:
    web.script = ["no length"]
    seen: list[Received | Note] = []
    assert fetch_source(web.url, progress=seen.append).read_bytes() == CONTENT
    assert seen[-1] == Received("records.json", len(CONTENT), len(CONTENT))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs a certificate")
def test_a_certificate_that_nobody_has_signed(web: Web, tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with pytest.raises(NetworkError, match=r"the certificate of 127\.0\.0\.1 cannot be verified: refused"):
            fetch_source(f"https://127.0.0.1:{server.server_address[1]}/a.json")
        server.shutdown()


@pytest.mark.parametrize("fault", ["503", "429", "short"])
def test_what_may_pass_is_tried_again(web: Web, fault: str) -> None:
    web.script = [fault, fault]
    assert fetch_source(web.url).read_bytes() == CONTENT
    assert web.asked == 3


@pytest.mark.parametrize(
    ("fault", "told", "asked"),
    [
        ("404", "HTTP 404", 1),
        ("401", "HTTP 401", 1),
        ("503", "HTTP 503", 3),
        ("short", f"got 1000 of {len(CONTENT)} bytes", 3),
        ("http://example.org/records.json", "not https", 1),
        ("file:///etc/hostname.json", "not https", 1),
        ("http://[::1", "an address is wrong", 1),
        ("http://127.0.0.1:99999999/a.json", "not https", 1),
        ("length " + "9" * 20, f"got {len(CONTENT)} of 99999999999999999999 bytes", 3),
        ("length " + "9" * 4400, "the connection to 127.0.0.1 broke off", 3),
        ("/again.json", "more than 10 redirections", 11),
    ],
)
def test_what_does_not_pass(web: Web, home: Path, fault: str, told: str, asked: int) -> None:
    web.script = [fault] * 20
    with pytest.raises(NetworkError) as error:
        fetch_source(web.url + "?key=secret")
    assert told in str(error.value)
    assert "secret" not in str(error.value)
    assert web.asked == asked
    assert all(name.startswith(".part-") for name in left(home))


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b"[", b"[]", b'{"a": 1}', b"[1, 2]"])
def test_what_is_no_file_of_records_is_not_kept(web: Web, home: Path, content: bytes) -> None:
    web.content = content
    with pytest.raises(DataError, match="is not a file of data") as error:
        fetch_source(web.url)
    assert str(home) not in str(error.value)
    assert left(home) == []
    web.content = CONTENT
    assert fetch_source(web.url).read_bytes() == CONTENT


def test_a_table_at_an_address_is_read_by_its_columns(web: Web, home: Path) -> None:
    address, web.content = web.url.replace("records.json", "fragen.csv.gz"), gzip.compress(b"frage,antwort\na,b\n")
    with pytest.raises(DataError, match="--columns instruction=frage,output=antwort") as unknown:
        fetch_source(address)
    with pytest.raises(UsageError, match="has no column 'x'") as wrong:
        fetch_source(address, columns={"instruction": "x", "output": "antwort"})
    assert not any(str(home) in str(error.value) for error in (unknown, wrong)) and left(home) == []
    file = fetch_source(address, columns={"instruction": "frage", "output": "antwort"})
    assert file.name.endswith("-fragen.csv.gz")


def test_more_than_anybody_wants(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_BYTES", 1000)
    with pytest.raises(NetworkError, match="more than 1,000 bytes"):
        fetch_source(web.url)


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/a.json",
        "ftp://example.org/a.json",
        "file:///etc/passwd.json",
        "https://me:secret@example.org/a.json",
        "https:///a.json",
        "https://[/a.json",
        "https://example.org:999999/a.json",
        "https://example.org/a.pdf",
        "nowhere.json",
        "",
    ],
)
def test_what_is_not_fetched(home: Path, address: str) -> None:
    with pytest.raises(UsageError) as error:
        fetch_source(address)
    assert "secret" not in str(error.value)
    assert not home.exists()


def test_nobody_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2cli.hub.resumable_download.DELAYS", ())
    with pytest.raises(
        NetworkError, match=r"cannot fetch http.*no connection to 127\.0\.0\.1: try.*a file of your own"
    ):
        fetch_source("http://127.0.0.1:9/a.json")


def test_waiting_for_another_process_says_so(web: Web, home: Path) -> None:
    notes: list[str] = []
    directory = home / "datasets" / "downloads"
    file = directory / source._file_name(web.url)

    def heard(event: Received | Note) -> None:
        if isinstance(event, Note):
            notes.append(event.text)
            held.release()

    directory.mkdir(parents=True)
    held = FileLock(file.with_name(f".{file.name}.lock"))
    held.acquire()
    assert fetch_source(web.url, progress=heard) == file
    assert notes == [f"another process is downloading {web.url}: waiting for it"]


def test_where_nothing_can_be_written_nothing_is_asked(web: Web, home: Path) -> None:
    home.write_text("")
    with pytest.raises(ResourceError, match="set GPT2CLI_HOME"):
        fetch_source(web.url)
    assert web.asked == 0


def test_a_path_is_used_where_it_is(home: Path, tmp_path: Path) -> None:
    file = write_json(tmp_path / "a.json", RECORDS)
    assert fetch_source(str(file), offline=True) == file
    assert not home.exists()


@pytest.mark.parametrize("name", ["a.txt", "texts", "a.jsonl"])
def test_plain_text_needs_no_preparation(home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "texts").mkdir()
    for file in (tmp_path / "a.txt", tmp_path / "texts" / "a.txt"):
        file.write_text("Once upon a time.", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "Once upon a time."}', encoding="utf-8")
    told = f"{tmp_path / name} holds plain text, which needs no preparation: use gpt2 finetune --data {tmp_path / name}"
    with pytest.raises(UsageError) as error:
        fetch_source(str(tmp_path / name))
    assert str(error.value) == told


def test_texts_in_records_at_an_address_are_data(web: Web) -> None:
    web.content = b'[{"text": "Once upon a time."}]'
    assert fetch_data(web.url).read_bytes() == web.content
    with pytest.raises(UsageError, match="holds plain text, which needs no preparation: use gpt2 finetune --data http"):
        fetch_source(web.url)
