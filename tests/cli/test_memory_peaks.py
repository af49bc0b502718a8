"""The memory that is told before a command runs, compared with the peak of its process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.runner import PATIENCE, clean_environment, run_process

CLOSE = 0.15
"""The largest difference between an estimate and a peak, as a fraction of the peak."""
WITH_PEAK = """
import sys
from gpt2cli.__main__ import main
from gpt2cli.model.peak_memory import peak_rss_mb
try:
    main()
finally:
    print(peak_rss_mb(), file=sys.stderr)
"""
TEXT = "the king and his daughter went over the hill to see an old house by the water "


def peak_of(*arguments: str) -> float:
    """The peak memory in MB of a process that runs this command."""
    command = [sys.executable, "-c", WITH_PEAK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return float(done.stderr.split()[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_generating(run: Run, precision: str) -> None:
    told = json.loads(run("info", "--model", "tiny", "--json").stdout)["generate_mb"][precision]
    generate = ("generate", "Once", "--model", "tiny", "--seed", "1", "--precision", precision)
    peak_of(*generate)  # packs the weights
    assert told == pytest.approx(peak_of(*generate), rel=CLOSE)


def write_data(kind: str, directory: Path) -> str:
    """Data whose batches are as large as they can be: long records, or text; or the bundled short records."""
    if kind == "text":
        (directory / "text.txt").write_text((TEXT * 12 + "\n\n") * 40)
        return str(directory / "text.txt")
    if kind == "records":
        records = [{"instruction": f"Tell story {i}.", "output": TEXT * 7} for i in range(40)]
        (directory / "records.json").write_text(json.dumps(records))
        return str(directory / "records.json")
    return kind


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["lessons", "records", "text"])
def test_fine_tuning(tmp_path: Path, kind: str, lora: bool) -> None:
    data, trained = write_data(kind, tmp_path), tmp_path / "run"
    done = run_process(
        *(
            "finetune",
            "--model",
            "tiny",
            "--data",
            data,
            "--max-steps",
            "2",
            "--eval-every",
            "0",
            "--sample-every",
            "0",
        ),
        *("--out", str(tmp_path / "out.pt"), "--run-dir", str(trained), "--json", *["--lora"] * lora),
    )
    assert done.returncode == 0, done.stderr
    plan = next(event for event in map(json.loads, done.stdout.splitlines()) if event["kind"] == "plan")
    peak = json.loads((trained / "summary.json").read_text())["peak_rss_mb"]
    assert plan["memory"] / 2**20 == pytest.approx(peak, rel=CLOSE)
    if kind == "records":
        # in a process: the memory of the libraries that are already loaded counts
        told = json.loads(run_process("info", "--model", "tiny", "--json").stdout)["memory_mb"]
        assert told["finetune_lora" if lora else "finetune"] == pytest.approx(peak, rel=CLOSE)
