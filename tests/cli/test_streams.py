"""Streams that the shell closed, or whose reader has gone."""

import os
import subprocess
import sys

import pytest

from tests.runner import clean_environment

CODE = """
import sys
from gpt2cli import __main__
from gpt2cli.cli import app
from gpt2cli.cli.terminal import Console

def work(app, arguments, variables):
    for _ in range(3):
        Console().note("aside " * 3000)
        print("more than any buffer holds " * 3000, file=sys.stderr, flush=True)
    print("result")
    return 0

app.invoke = work
__main__.main()
"""


def run_with_stderr(stderr: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", CODE]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=clean_environment())


def test_work_goes_on_when_nobody_reads_stderr():
    reader, writer = os.pipe()
    os.close(reader)
    done = run_with_stderr(writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, "result\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")  # noqa: PTH110
def test_work_goes_on_when_stderr_is_a_full_disk():
    full = os.open("/dev/full", os.O_WRONLY)
    done = run_with_stderr(full)
    os.close(full)
    assert (done.returncode, done.stdout) == (0, "result\n")
