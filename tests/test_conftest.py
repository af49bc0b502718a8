"""The tests behave in the same way however they are started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner import PATIENCE

ROOT = Path(__file__).parents[1]
IN_THE_BACKGROUND = "trap '' HUP; \"$@\" & wait $!"
"""As `nohup sh -c 'COMMAND & wait'` or a recipe of make: a shell without job control starts it with SIGINT ignored."""
A_TEST = """
import signal, subprocess, sys

def test_commands_receive_signals():
    for name in ("SIGINT", "SIGHUP"):
        raised = f"import signal; signal.raise_signal(signal.{name})"
        done = subprocess.run([sys.executable, "-c", raised], stderr=subprocess.DEVNULL)
        assert done.returncode == -getattr(signal, name), name
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("n_workers", ["0", "1"])
def test_commands_receive_signals_when_pytest_runs_in_the_background(tmp_path: Path, n_workers: str) -> None:
    (tmp_path / "conftest.py").write_text("import tests.conftest\n")
    (tmp_path / "test_signals.py").write_text(A_TEST)
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", n_workers, str(tmp_path)]
    done = subprocess.run(
        ["sh", "-c", IN_THE_BACKGROUND, "sh", *pytest_command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=PATIENCE,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
