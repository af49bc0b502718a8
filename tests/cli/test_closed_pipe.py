"""Commands whose reader leaves, as in `gpt2 runs | true`: exit code 141, as if by SIGPIPE, and no message."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2cli.checkpoints.save import save_checkpoint
from tests import models
from tests.runner import PATIENCE, clean_environment

EVALUATE = "evaluate --ckpt a.pt --data records.json --split all --answers 1 -n 1 --offline"
EXPLAIN = "explain One --ckpt a.pt --parts next,attribution"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("work")
    save_checkpoint(models.small_model(), directory / "a.pt")
    (directory / "records.json").write_text('[{"instruction": "a", "output": "b"}]')
    (directory / "home" / "runs" / "one").mkdir(parents=True)
    (directory / "home" / "runs" / "one" / "config.json").write_text("{}")
    return directory


def run(work: Path, command: str, stdout: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "gpt2cli", *command.split()],
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=work,
        env=clean_environment() | {"GPT2CLI_HOME": str(work / "home"), "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["info --ckpt a.pt", "runs", EVALUATE, EXPLAIN, "--help"])
def test_a_closed_pipe(work: Path, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code, stderr = run(work, command, writer)
    finally:
        os.close(writer)
    assert (code, "error" in stderr) == (141, False), stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's disk that is always full")
@pytest.mark.parametrize("command", ["info --ckpt a.pt", "runs", EXPLAIN])
def test_a_full_disk_behind_stdout(work: Path, command: str) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        code, stderr = run(work, command, full.fileno())
    assert (code, stderr) == (6, "error: No space left on device: the standard output\n")
