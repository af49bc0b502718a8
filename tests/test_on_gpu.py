"""The script of the GPU checks, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import on_gpu


def test_steps_run_in_the_order_in_which_they_are_named() -> None:
    names = [step.name for step in on_gpu.choose(["speed-prefill-*", "card", "speed-prefill-124m"], slow_peers=True)]

    assert names == ["speed-prefill-124m", "speed-prefill-1.5b", "card"]


def test_a_name_of_no_step_is_refused() -> None:
    with pytest.raises(SystemExit, match="no step is called nothing"):
        on_gpu.choose(["nothing"], slow_peers=True)


@pytest.mark.slow
def test_steps_of_each_kind_pass_without_a_gpu(tmp_path: Path) -> None:
    chosen = ["gradients", "decode-bf16-graphs", "resume-lora", "card", "speed-decode-124m", "speed-prefill-124m"]
    chosen += ["speed-train-records-124m"]
    script = [sys.executable, str(Path(on_gpu.__file__)), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run([*script, *chosen], capture_output=True, text=True, encoding="utf-8")

    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {result["step"] for result in results} == set(chosen)
