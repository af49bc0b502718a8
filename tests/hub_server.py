"""A local server that speaks as much of the Hub's API as downloads and uploads need, and goes wrong on demand."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Faults:
    """What goes wrong with one file. A count says how many requests it happens to."""

    truncate_at: int | None = None  # the body ends after so many bytes ...
    truncate_times: int = 10**9  # ... this often
    status: int | None = None  # this status instead of an answer ...
    status_times: int = 10**9  # ... this often ...
    status_methods: tuple[str, ...] = ("HEAD", "GET")  # ... to these requests
    headers: dict[str, str] = field(default_factory=dict)  # put in place of the right ones, or added
    body: bytes | None = None  # sent in place of the content
    ignore_range: bool = False
    hang_at: int | None = None  # the body stops after so many bytes, and the line stays open ...
    goes_on: threading.Event = field(default_factory=threading.Event)  # ... until this is set
    chunk_delay: float = 0.0  # seconds between pieces of 64 KiB


@dataclass
class HubServer:
    """One repository's files. `log` holds a (method, file name or other path, Range header) for each request."""

    files: dict[str, bytes]
    repo: str = "openai-community/gpt2"
    commit: str = COMMIT
    faults: dict[str, Faults] = field(default_factory=dict)
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)
    elsewhere: bool = False  # large files are sent from another host, as the Hub does
    authorizations_elsewhere: set[str | None] = field(default_factory=set)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    made: list[dict[str, Any]] = field(default_factory=list)  # what was asked for when the repository was made
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by their sha256, not part of a commit yet
    messages: list[str] = field(default_factory=list)  # of the commits

    def requests(self, method: str, name: str) -> list[str | None]:
        """The Range headers of all such requests so far."""
        return [span for verb, file, span in self.log if (verb, file) == (method, name)]

    @contextmanager
    def running(self) -> Iterator["HubServer"]:
        handler = type("Handler", (_Handler,), {"hub": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            try:
                yield self
            finally:
                self.closing.set()
                server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients that are killed, or give up
            super().handle()

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunked()
        step = self._step()
        self.hub.log.append((self.command, step, None))
        self.hub.authorizations.add(self.headers.get("Authorization"))
        if self._refuses(step):
            return None
        answer = getattr(self, f"_{step}", None)
        return self._json(answer(body)) if answer else self._status(404, {})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunked()
        self.hub.log.append((self.command, "put", None))
        if self._refuses("put"):
            return
        digest = self.path.rpartition("/")[2]
        assert digest == hashlib.sha256(content).hexdigest()
        self.hub.stored[digest] = content
        self._json({})

    def _step(self) -> str:
        """What part of an upload a request is."""
        return {
            "/api/repos/create": "create",
            "/api/validate-yaml": "validate",
            f"/api/models/{self.hub.repo}/preupload/main": "preupload",
            f"/{self.hub.repo}.git/info/lfs/objects/batch": "batch",
            f"/api/models/{self.hub.repo}/commit/main": "commit",
        }.get(self.path, "unknown")

    def _chunked(self) -> bytes:
        """A body of which the client did not know the length."""
        parts = []
        while self.headers.get("Transfer-Encoding") == "chunked":
            part = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def _refuses(self, step: str) -> bool:
        faults = self.hub.faults.get(step, Faults())
        if faults.hang_at is not None:
            self.hub.closing.wait()
        if not faults.status or faults.status_times <= 0:
            return False
        faults.status_times -= 1
        self._status(faults.status, faults.headers)
        return True

    def _create(self, body: bytes) -> dict[str, Any]:
        self.hub.made.append(json.loads(body))
        return {"url": f"{self.hub.url}/{self.hub.repo}"}

    def _validate(self, body: bytes) -> dict[str, Any]:
        return {"errors": [], "warnings": []}

    def _preupload(self, body: bytes) -> dict[str, Any]:
        files = json.loads(body)["files"]
        modes = ["lfs" if file["path"].endswith((".safetensors", ".gguf")) else "regular" for file in files]
        answers = [{"path": file["path"], "uploadMode": mode} for file, mode in zip(files, modes, strict=True)]
        return {"files": [answer | {"shouldIgnore": False} for answer in answers]}

    def _batch(self, body: bytes) -> dict[str, Any]:
        wanted = json.loads(body)["objects"]
        return {
            "transfer": "basic",
            "objects": [{**f, "actions": {"upload": {"href": f"{self.hub.url}/put/{f['oid']}"}}} for f in wanted],
        }

    def _commit(self, body: bytes) -> dict[str, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.stored[value["oid"]]
            else:
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
        return {"success": True, "commitUrl": f"{self.hub.url}/{self.hub.repo}/commit/{COMMIT}", "commitOid": COMMIT}

    def _json(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> None:
        hub = self.hub
        match = re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", unquote(self.path))
        if not match:
            hub.log.append((self.command, self.path, None))
            return self._status(404, {})
        repo, revision, name = match.groups()
        hub.log.append((self.command, name, self.headers.get("Range")))
        elsewhere = self.headers["Host"].startswith("localhost")
        (hub.authorizations_elsewhere if elsewhere else hub.authorizations).add(self.headers.get("Authorization"))
        faults = hub.faults.get(name, Faults())
        if faults.status and faults.status_times > 0 and self.command in faults.status_methods:
            faults.status_times -= 1
            return self._status(faults.status, faults.headers)
        if repo != hub.repo:
            return self._status(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", hub.commit):
            return self._status(404, {"X-Error-Code": "RevisionNotFound"})
        if name not in hub.files:
            return self._status(404, {"X-Error-Code": "EntryNotFound"})
        large = name.endswith((".safetensors", ".bin"))
        if large and hub.elsewhere and not elsewhere:
            there = hub.url.replace("127.0.0.1", "localhost") + self.path
            return self._status(302, self._linked(hub.files[name]) | {"Location": there})
        return self._file(hub.files[name], faults, large)

    def _status(self, status: int, headers: dict[str, str]) -> None:
        # what a server writes here is never to be shown: it may quote the request
        body = json.dumps({"error": f"server says {self.headers.get('Authorization')}"}).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _file(self, content: bytes, faults: Faults, large: bool) -> None:
        start = 0
        span = self.headers.get("Range")
        if span and not faults.ignore_range:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
        body = (content if faults.body is None else faults.body)[start:]
        headers = {"X-Repo-Commit": self.hub.commit, "Content-Length": str(len(body)), "ETag": f'"{git_sha1(content)}"'}
        if large:
            headers |= self._linked(content)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if start else 200)
        for key, value in (headers | faults.headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send(body, faults)

    def _linked(self, content: bytes) -> dict[str, str]:
        digest = hashlib.sha256(content).hexdigest()
        return {"X-Repo-Commit": self.hub.commit, "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}

    def _send(self, body: bytes, faults: Faults) -> None:
        end = len(body)
        if faults.truncate_at is not None and faults.truncate_times > 0:
            faults.truncate_times -= 1
            end = faults.truncate_at
            self.close_connection = True
        if faults.hang_at is not None:
            end = faults.hang_at
        try:
            self._write(body[:end], faults.chunk_delay)
            if faults.hang_at is not None:
                while not (self.hub.closing.wait(0.02) or faults.goes_on.is_set()):
                    pass
                self._write(body[end:] if faults.goes_on.is_set() else b"", faults.chunk_delay)
        except OSError:  # the client is gone
            self.close_connection = True

    def _write(self, body: bytes, chunk_delay: float) -> None:
        for at in range(0, len(body), 2**16):
            self.wfile.write(body[at : at + 2**16])
            self.hub.closing.wait(chunk_delay)


def git_sha1(content: bytes) -> str:
    """Git's name for a file's content, as the Hub gives it for small files."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
