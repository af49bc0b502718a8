"""What the tests share: a home directory of their own, a local Hub, and the command as a process."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer
from tests.processes import run_forked

# a process a core: threads that wait for each other's turn cost more than they bring
os.environ.setdefault("OMP_NUM_THREADS", "1")

# started by nohup or in the background, these tests would hand ignored signals down to every process they start
for name, action in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, action)

PATIENCE = 240.0
"""Seconds after which a process that a test waits for is taken to hang; a busy machine needs ten times its usual."""
Run = Callable[..., "subprocess.CompletedProcess[str]"]
NOT_INHERITED = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"),
    *("NO_COLOR", "FORCE_COLOR"),
)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have compiled what most tests run, before processes wait for each other to do it, and say so."""
    if not hasattr(session.config, "workerinput"):
        prepare = "load('tiny', precision=name).prepare(print)"
        code = f"from gpt2cli import load\nfor name in ('fp32', 'fp16', 'int8'): {prepare}"
        subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, in this process and in those it starts."""
    monkeypatch.setenv("GPT2CLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in NOT_INHERITED:
        monkeypatch.delenv(name, raising=False)
    if "huggingface_hub" in sys.modules:  # it read the variable when it was imported
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running Hub with one model, for this process and for those it starts. No token of the user's gets near it."""
    from huggingface_hub import constants

    files = {"config.json": b'{"model_type": "gpt2"}', "model.safetensors": random.Random(0).randbytes(300_000)}
    with HubServer(files).running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        # the client read the variables when it was imported
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home.parent / "hf" / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture
def run(home: Path) -> Run:
    """Runs the command with these arguments and gives back what it wrote; `env` adds to the environment."""

    def start(
        *args: str, input: str | None = None, env: dict[str, str] | None = None, timeout: float = PATIENCE
    ) -> "subprocess.CompletedProcess[str]":
        if env is None:  # much of what is in there is read before a forked process could be told
            return run_forked(list(args), input, clean_environment(), timeout)
        return subprocess.run(
            [sys.executable, "-m", "gpt2cli", *args],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=clean_environment() | (env or {}),
            timeout=timeout,
        )

    return start


def clean_environment() -> dict[str, str]:
    """This process's environment without what would change what the command does or how it looks."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
