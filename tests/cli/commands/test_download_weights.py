"""`gpt2 download-weights` as people and scripts run it: signals, streams and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from gpt2cli.hub import resumable_download
from tests.conftest import Run
from tests.hub_server import COMMIT, Faults, HubServer
from tests.runner import PATIENCE, clean_environment

WEIGHTS = "model.safetensors"
COMMAND = [sys.executable, "-m", "gpt2cli", "download-weights"]

# runs the command in a process where any connection is an error, and with NO_CLIENT also an import of the Hub's client
NO_NETWORK = """
import socket, sys
def refuse(*args): raise AssertionError("the network was touched")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from gpt2cli.__main__ import main
main()
"""
NO_CLIENT = 'import sys; sys.modules["huggingface_hub"] = None\n' + NO_NETWORK


def path_of(home: Path) -> Path:
    return home / "models" / "openai-community--gpt2" / COMMIT


def part_of(home: Path) -> Path:
    return path_of(home).parent / ".staging" / COMMIT / WEIGHTS


def one_error(result: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The error line of a command that left with this code and said nothing on stdout."""
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    assert result.stderr.endswith(line + "\n")
    return line


@contextmanager
def downloading(home: Path, hub: HubServer) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the middle of a download, which waits for the server."""
    hub.faults[WEIGHTS] = Faults(hang_at=2**16)
    environment = clean_environment() | {"HF_HUB_DOWNLOAD_TIMEOUT": str(int(PATIENCE))}
    process = subprocess.Popen(COMMAND, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: part_of(home).exists() and part_of(home).stat().st_size > 0)
        yield process
    finally:
        process.kill()
        process.wait()
        hub.faults.clear()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_download_list_and_remove(hub: HubServer, home: Path, run: Run) -> None:
    first = run("download-weights")
    assert (first.returncode, first.stdout) == (0, f"{path_of(home)}\n")
    assert "downloaded 2 files, 300.0 kB" in first.stderr
    assert {name for _, name, _ in hub.log} == set(hub.files)  # and nothing about the user
    again = run("download-weights", "gpt2", "--json")
    assert (again.returncode, again.stderr) == (0, "")
    listed = run("download-weights", "--list", "--json")
    assert listed.stdout == again.stdout
    entry = json.loads(listed.stdout)
    assert list(entry) == ["model", "revision", "path", "bytes", "downloaded_at", "packed_bytes"]
    assert (entry["model"], entry["revision"], entry["bytes"]) == ("gpt2", "main", 300_022)
    assert entry["packed_bytes"] == 0
    assert entry["path"] == str(path_of(home))
    table = run("download-weights", "--list").stdout
    assert "gpt2" in table
    assert "300.0 kB" in table
    assert str(path_of(home)) in table
    removed = run("download-weights", "--remove", "gpt2")
    assert (removed.returncode, removed.stdout, path_of(home).exists()) == (0, "", False)
    assert run("download-weights", "--list", "--json").stdout == ""
    assert "not on disk" in one_error(run("download-weights", "--remove", "gpt2"), 2)
    assert "tiny is a part of gpt2cli" in one_error(run("download-weights", "--remove", "tiny"), 2)
    for as_json in ([], ["--json"]):
        empty = run("download-weights", "--list", *as_json)
        assert (empty.returncode, empty.stdout) == (0, "")
        assert empty.stderr.startswith("no models are on disk: `gpt2 download-weights` fetches gpt2")


def test_packed_weights_are_listed_and_removed(hub: HubServer, home: Path, run: Run) -> None:
    run("download-weights")
    beside, others = path_of(home) / "packed", home / "packed"
    for directory, size in ((beside, 1000), (others, 2_000_000)):
        directory.mkdir(mode=0o700)
        (directory / "int8-0.packed").write_bytes(bytes(size))
        (directory / ".lock").touch()
    [entry] = run("download-weights", "--list", "--json").stdout.splitlines()
    assert (json.loads(entry)["packed_bytes"], json.loads(entry)["bytes"]) == (1000, 300_022)
    listed = run("download-weights", "--list")
    assert "1.0 kB" in listed.stdout
    [line] = listed.stderr.splitlines()
    assert f"2.0 MB in {others}" in line and "--remove packed" in line
    assert "2.0 MB" not in run("download-weights", "--list", "--quiet").stderr
    assert "have no revision" in one_error(run("download-weights", "--remove", "packed", "--revision", "main"), 2)
    removed = run("download-weights", "--remove", "packed")
    assert (removed.returncode, removed.stdout) == (0, "")
    assert "removed all packed weights, 2.0 MB" in removed.stderr
    assert not list(home.rglob("*.packed"))
    assert run("download-weights", "--list").stderr == ""
    (beside / "int8-0.packed").write_bytes(bytes(1000))
    assert "removed gpt2, 301.0 kB" in run("download-weights", "--remove", "gpt2").stderr
    assert not beside.exists()


def test_force_fetches_again_and_quiet_is_quiet(hub: HubServer, run: Run) -> None:
    for arguments in ((), ("--force",), ("--force", "--revision", "main", "--quiet")):
        result = run("download-weights", "gpt2", *arguments)
        assert result.returncode == 0
        assert ("downloaded" in result.stderr) == ("--quiet" not in arguments)
    assert result.stderr == ""
    assert len(hub.requests("GET", WEIGHTS)) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["--list", "gpt2"],
        ["--list", "--remove", "gpt2"],
        ["--list", "--revision", "main"],
        ["--remove", "gpt2", "--force"],
        ["gpt2@main", "--revision", "v1"],
        ["gpt2", "--revision", "../x"],
        ["../../x"],
        [""],
        ["--remove", "../../x"],
    ],
)
def test_what_cannot_be_asked(hub: HubServer, home: Path, run: Run, arguments: list[str]) -> None:
    one_error(run("download-weights", *arguments), 2)
    assert hub.log == []
    assert not home.exists()


def test_a_name_with_controls_is_shown_escaped(home: Path, run: Run) -> None:
    error = one_error(run("download-weights", "a/b\x1b]52;c;x\x07\x9b\n[bold]"), 2)
    assert r"a/b\x1b]52;c;x\x07\x9b\n[bold]" in error


def test_each_kind_of_failure_has_its_exit_code(hub: HubServer, home: Path, run: Run) -> None:
    hub.faults[WEIGHTS] = Faults(headers={"X-Linked-Etag": "../../x"})
    assert "not a hash" in one_error(run("download-weights"), 5)
    hub.faults[WEIGHTS] = Faults(body=bytes(300_000))
    assert "sha256 mismatch" in one_error(run("download-weights"), 4)
    hub.faults["config.json"] = Faults(status=403, headers={"X-Error-Code": "GatedRepo"})
    result = run("download-weights", env={"HF_TOKEN": "hf_secret"})
    assert "is gated" in one_error(result, 5)
    assert hub.authorizations == {None, "Bearer hf_secret"}
    hub.faults.clear()
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"\x80"}
    result = run("download-weights", "--debug", env={"HF_TOKEN": "hf_secret"})
    assert "pickle" in result.stderr
    assert "hf_secret" not in result.stderr
    left = {path.name for path in home.parent.rglob("*") if path.is_file()}
    assert left <= {"config.json", "openai-community--gpt2.lock"}


def test_a_server_that_hangs_is_given_up(hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults[WEIGHTS] = Faults(hang_at=0)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)  # the variable of this name, read at the import
    monkeypatch.setattr(resumable_download, "sleep", lambda seconds: None)
    result = run("download-weights")
    assert "got 0 of 300000 bytes (no answer in time" in one_error(result, 5)
    assert result.stderr.count("trying again") == 4


def test_kill_in_mid_download_and_again(hub: HubServer, home: Path, run: Run) -> None:
    stale = path_of(home).parent / ".staging" / ("f" * 40)
    with downloading(home, hub) as process:
        process.kill()
        process.wait()
    stale.mkdir()
    came = part_of(home).stat().st_size
    assert 0 < came < 300_000
    result = run("download-weights")
    assert (result.returncode, result.stdout) == (0, f"{path_of(home)}\n")
    assert (path_of(home) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert hub.requests("GET", WEIGHTS)[-1] == f"bytes={came}-"
    assert {path.name for path in path_of(home).parent.iterdir()} - {".staging"} == {COMMIT, "refs"}
    assert not stale.exists()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_what_can_be_resumed(hub: HubServer, home: Path, run: Run, signum: int, code: int) -> None:
    with downloading(home, hub) as process:
        process.send_signal(signum)
        assert process.wait(PATIENCE) == code
    came = part_of(home).stat().st_size
    assert run("download-weights").returncode == 0
    assert hub.requests("GET", WEIGHTS)[-1] == f"bytes={came}-"


def test_four_at_once_download_once(hub: HubServer, home: Path) -> None:
    environment = clean_environment()
    with downloading(home, hub) as first:
        others = [
            subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        notes = [other.stderr.readline() for other in others if other.stderr]
        hub.faults[WEIGHTS].goes_on.set()
        outputs = [other.communicate(timeout=PATIENCE) for other in others]
        assert first.wait(PATIENCE) == 0
    assert [other.returncode for other in others] == [0, 0, 0]
    assert {out for out, _ in outputs} == {f"{path_of(home)}\n"}
    assert all("another process is downloading gpt2" in note for note in notes)
    assert len(hub.requests("GET", WEIGHTS)) == 1


def test_offline_and_cached_opens_no_socket(hub: HubServer, home: Path, run: Run) -> None:
    def without_network(*arguments: str, code: str = NO_CLIENT) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, "download-weights", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=PATIENCE)

    absent = without_network("gpt2", "--offline", code=NO_NETWORK)  # the client knows where its cache is
    assert "--model tiny" in one_error(absent, 5)
    assert without_network("owner/name", "--offline").returncode == 5
    assert without_network("gpt2").returncode == 1  # so the tripwire works
    assert run("download-weights").returncode == 0
    for arguments in (("gpt2", "--offline"), ("gpt2",), ("--list", "--json"), ("--remove", "gpt2")):
        result = without_network(*arguments)
        assert result.returncode == 0, result.stderr


def test_what_the_hugging_face_cache_holds_is_not_downloaded(hub: HubServer, home: Path, run: Run) -> None:
    for name in hub.files:
        hf_hub_download(hub.repo, name)
    hub.log.clear()
    found = run("download-weights")
    assert (found.returncode, found.stdout) == (0, f"{path_of(home)}\n")
    assert found.stderr == "found in the Hugging Face cache: gpt2, 0.3 MB\n"
    assert {method for method, _, _ in hub.log} == {"HEAD"}
    assert run("download-weights", "--remove", "gpt2").returncode == 0
    hub.log.clear()
    offline = run("download-weights", "--offline", "--quiet")
    assert (offline.returncode, offline.stdout, offline.stderr) == (0, f"{path_of(home)}\n", "")
    assert hub.log == []


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_bar_on_a_terminal(hub: HubServer, home: Path) -> None:
    hub.faults[WEIGHTS] = Faults(chunk_delay=0.1)
    shown = in_terminal([*COMMAND, "gpt2"])
    assert "━" in shown
    assert "300.0/300.0 kB" in shown
    assert f"{path_of(home)}" in shown.replace("\r\n", "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_narrow_terminal_has_one_line_for_it_and_whole_paths(hub: HubServer, home: Path) -> None:
    hub.faults[WEIGHTS] = Faults(chunk_delay=0.1)
    shown = in_terminal([*COMMAND, "gpt2"], COLUMNS="40")
    bars, _, rest = shown.rpartition("downloading")
    assert "━" in bars
    assert "100%" in rest
    assert "\x1b[1A" not in shown  # the cursor never goes up, for there is one line
    assert str(path_of(home)) in in_terminal([*COMMAND, "--list"], COLUMNS="40", NO_COLOR="1")
    assert "\x1b" not in in_terminal([*COMMAND, "--list"], NO_COLOR="1")


def test_no_bar_where_nothing_can_be_redrawn(hub: HubServer, home: Path, run: Run) -> None:
    in_file = run("download-weights", env={"FORCE_COLOR": "1", "TERM": "xterm"}).stderr
    assert "downloaded 2 files" in in_file
    for control in ("\x1b[2K", "\x1b[?25l", "\x1b[1A", "\r"):
        assert control not in in_file
    if os.name == "posix":
        dumb = in_terminal([*COMMAND, "--force"], TERM="dumb")
        assert "downloaded 2 files" in dumb
        assert "\x1b" not in dumb


def test_a_server_cannot_write_to_the_terminal(hub: HubServer, run: Run, run_process: Run) -> None:
    hub.faults["config.json"] = Faults(headers={"X-HF-Warning": "topic; \x1b]0;gotcha\x07"})
    for start, arguments, env in (
        (run, (), {}),
        (run, ("--quiet", "--force"), {}),
        (run_process, ("--force",), {"HF_DEBUG": "1"}),
    ):
        result = start("download-weights", *arguments, env=env)
        assert result.returncode == 0
        assert "gotcha" not in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({"HF_ENDPOINT": "http://["}, 2),
        ({"HF_ENDPOINT": "foo"}, 2),
        ({"GPT2CLI_HOME": "~nosuch/x"}, 2),
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, 5),
        ({"ALL_PROXY": "foo://127.0.0.1:9"}, 5),
    ],
    ids=str,
)
def test_a_wrong_environment_is_told_at_once(hub: HubServer, run_process: Run, env: dict[str, str], code: int) -> None:
    result = run_process("download-weights", env=env)
    one_error(result, code)
    assert "trying again" not in result.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("generate --model gpt2-", ["gpt2-large", "gpt2-medium", "gpt2-xl"]),
        ("generate --model ./mod", ["./models-of-mine"]),
        ("download-weights gpt2-m", ["gpt2-medium"]),
        ("download-weights --remove ", ["gpt2", "packed"]),
    ],
)
def test_the_shell_completes_models(
    hub: HubServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, offered: list[str]
) -> None:
    assert run("download-weights").returncode == 0
    (tmp_path / "models-of-mine").mkdir()
    code = (
        "import os, sys; sys.argv = ['gpt2']; os.environ['_TYPER_COMPLETE_ARGS'] = 'gpt2 ' + sys.stdin.read()\n"
        "from gpt2cli.__main__ import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    env = clean_environment() | {"_GPT2_COMPLETE": "complete_zsh"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=words,
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=PATIENCE,
    )
    assert [name for name in offered if f'"{name}"' not in done.stdout] == [], done.stdout + done.stderr
    assert done.stdout.count('"') == 2 * len(offered)


def in_terminal(command: list[str], **env: str) -> str:
    """Everything that a command shows when its streams are a terminal."""
    import pty

    master, slave = pty.openpty()
    environment = clean_environment() | {"TERM": "xterm", "COLUMNS": "200"} | env
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 2**16):
                shown += piece
        except OSError:  # how Linux reports the end
            pass
    os.close(master)
    assert process.returncode == 0
    return shown.decode()
