"""The process that opens mutants: it reads a line of JSON for each, and answers with one."""

import json
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.data.prepared import read_prepared
from gpt2cli.errors import GPT2Error
from gpt2cli.model.gpt import GPT
from gpt2cli.training.appended_files import lines_up_to
from gpt2cli.training.engine import train
from gpt2cli.training.run_checkpoints import Resumable, read_newest
from gpt2cli.training.runs import is_done, read_config
from tests.training.records import job

MOST_MEMORY = 6 * 2**30
"""Bytes of address space, so that a violation does not take the machine down."""
LONGEST_MESSAGE = 2_000


def use(model: GPT) -> None:
    """Run a model that could be opened on a few tokens."""
    with torch.no_grad():
        model(torch.arange(min(3, model.config.vocab_size, model.config.block_size))[None])


def open_file(work: Path, name: str) -> None:
    use(load_plain(ckpt=work / name, device="cpu", offline=True))
    read_metadata(work / name).prompt_template(work / name)


def open_directory(work: Path) -> None:
    use(load_plain(str(work), device="cpu", offline=True))


def open_adapter(work: Path) -> None:
    use(load_plain(str(work / "base"), ckpt=work / "adapter", device="cpu", offline=True))
    load_plain(ckpt=work / "adapter", device="cpu", offline=True)
    read_metadata(work / "adapter").prompt_template(work)


def open_run(work: Path) -> None:
    """Go on with a run, up to its first event."""
    run = work / "run"
    read_config(run)
    is_done(run)
    with (run / "metrics.jsonl").open("rb") as file:
        list(lines_up_to(file, 6))
    found = list(read_newest(run / "checkpoints"))
    resume = found[-1] if found and isinstance(found[-1], Resumable) else None
    next(train(job(save_every=3, max_steps=6, resume=resume)))


OPENERS: dict[str, Callable[[Path], Any]] = {
    "hub": open_directory,
    "config": open_directory,
    "index": open_directory,
    "adapter": open_adapter,
    "run": open_run,
    "prepared": lambda work: read_prepared(work / "data", with_records=True),
    "gguf": lambda work: open_file(work, "a.gguf"),
    "pt": lambda work: open_file(work, "a.pt"),
    "old pt": lambda work: open_file(work, "a.pkl"),
    "nanogpt": lambda work: open_file(work, "a.pt"),
}


def peak() -> int:
    """Bytes that this process held in memory at most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def attempt(kind: str, work: Path) -> dict[str, Any]:
    """Open one mutant: whether it opened, what is wrong with how it was refused, memory in bytes, CPU seconds."""
    forget_peak()
    before, start, problem, opened = peak(), time.process_time(), None, True
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            OPENERS.get(kind, lambda work: open_file(work, "a.safetensors"))(work)
        except GPT2Error as error:
            opened = False
            if len(str(error)) > LONGEST_MESSAGE:
                problem = f"a message of {len(str(error))} characters: {str(error)[:200]!r}"
        except Exception as error:
            places = [f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)]
            problem = f"{type(error).__name__}: {str(error)[:200]!r} at {' '.join(places[-4:])}"
    if told:
        problem = problem or f"a warning: {str(told[0].message)[:200]!r}"
    return {"opened": opened, "problem": problem, "memory": peak() - before, "seconds": time.process_time() - start}


def main() -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(attempt(request["kind"], Path(request["work"]))), flush=True)


if __name__ == "__main__":
    main()
