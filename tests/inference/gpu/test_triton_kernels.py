"""The Triton kernels compute what PyTorch computes. They run in Triton's interpreter, which needs no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = [
    "steps of one row",
    "steps of rows",
    "splits of one row",
    "splits of rows",
    "early starts",
    "steps in 16 bits",
    "many rows",
    "a greedy text",
    "greedy texts",
    "a drawn text",
    "drawn texts",
    "a text drawn from all",
    "choices",
]


@pytest.mark.parametrize("case", CASES)
def test_the_kernels_compute_what_pytorch_computes(case):
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.inference.gpu.triton_on_cpu", case],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
