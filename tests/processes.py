"""The command as a process that starts with PyTorch imported, which takes seconds: the tests start hundreds."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
CONTEXT.set_forkserver_preload(["torch", "numba", "matplotlib.figure"])


def run_forked(
    arguments: list[str], input: str | None, environment: dict[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """As `subprocess.run` of `python -m gpt2cli`, whose input and output are files."""
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / number for number in "012"]
        files[0].write_text(input or "", encoding="utf-8")
        process = CONTEXT.Process(target=_become, args=(arguments, environment, Path.cwd(), files))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        stdout, stderr = (file.read_text(encoding="utf-8") if file.exists() else "" for file in files[1:])
        return subprocess.CompletedProcess(arguments, process.exitcode, stdout, stderr)


def _become(arguments: list[str], environment: dict[str, str], directory: Path, files: list[Path]) -> None:
    """Run the command in this process, with this environment and these files."""
    for number, (file, how) in enumerate(zip(files, ("rb", "wb", "wb"), strict=True)):
        with file.open(how) as opened:
            os.dup2(opened.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, how, encoding="utf-8", errors=errors, closefd=False)
        for number, how, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["gpt2", *arguments]
    runpy.run_module("gpt2cli", run_name="__main__", alter_sys=True)
