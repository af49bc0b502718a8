"""What the tests share: a home directory of their own, a local Hub, the command, and compiled kernels."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest

from tests import runner
from tests.hub_server import HubServer

# a process a core: threads that wait for each other's turn cost more than they bring
os.environ.setdefault("OMP_NUM_THREADS", "1")

# whatever HOME a test sets: compiled kernels stay where the user has them
os.environ.setdefault("GPT2CLI_CACHE", platformdirs.user_cache_dir("gpt2cli", appauthor=False))

# started by nohup or in the background, these tests would hand ignored signals down to every process they start
for name, action in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, action)

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WARM_UP = """
from tests.runner import run_here
for name in ("fp32", "bf16", "fp16", "int8", "int4"):
    run_here("generate", "x", "--model", "tiny", "-n", "1", "--precision", name)
"""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile all CPU kernels, before several processes of the tests wait for each other to do it.

    Compiled kernels are kept in the user's cache under digests of their sources, so the next run finds them there.
    """
    if not hasattr(session.config, "workerinput"):
        subprocess.run([sys.executable, "-c", WARM_UP], check=True, cwd=session.config.rootpath)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory, in this process and in those it starts."""
    monkeypatch.setenv("GPT2CLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in runner.NOT_INHERITED:
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
    """Runs the command in this process: see `runner.run_here`."""
    return runner.run_here


@pytest.fixture
def run_process(home: Path) -> Run:
    """Runs the command in a process of its own: see `runner.run_process`."""
    return runner.run_process
