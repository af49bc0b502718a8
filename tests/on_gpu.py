"""Run the GPU checks: named steps, each in a process of its own with its own time limit.

    python tests/on_gpu.py [STEP ...] [--device cuda|cpu] [--tiny] [--out DIR] [--jobs N] [--no-slow-peers] [--list]

STEP is the name of a step, a pattern such as "train-*", or a group: `right` (results are correct) or `fast` (time is
measured). The default is all steps. Steps of `right` run first, --jobs at a time; then those of `fast`, one by one and
in the order in which they are named.
Each result is appended to DIR/results.jsonl at once, and a short form of it is printed. Logs of failed steps are in
their results. `--device cpu --tiny` rehearses all steps without a GPU, with small shapes.

The exit code is 0 if all steps passed, 1 otherwise. tests/gpu holds the steps; pytest does not collect any of this.
"""

import argparse
import contextlib
import fnmatch
import importlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TINY_FACTOR = 4.0
"""How many times longer a step may take in a rehearsal, on few and slow cores."""
FRESH = "GPT2CLI_FRESH_STEP"
"""An environment variable that is set where a step's process is not a copy but imports everything itself."""
GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL for a step that ran past its limit."""


@dataclass(frozen=True)
class Step:
    """A step: `function` is "module:function" below tests.gpu, called with a Context and `options`."""

    name: str
    group: str
    limit: float
    function: str
    options: dict = field(default_factory=dict)
    slow_peer: bool = False


def steps() -> list[Step]:
    """All steps in the order in which they run."""
    return [*right_steps(), *fast_steps()]


def right_steps() -> list[Step]:
    found = [
        Step("logits", "right", 60, "numerics:logits"),
        Step("gradients", "right", 60, "numerics:gradients"),
        Step("sampling", "right", 90, "numerics:sampling"),
    ]
    for precision in ("fp32", "bf16", "fp16"):
        for graphs in (False, True):
            name = f"decode-{precision}{'-graphs' if graphs else ''}"
            options = {"precision": precision, "graphs": graphs}
            found.append(Step(name, "right", 90 if graphs else 60, "numerics:decoding", options))
    options = {"precision": "bf16", "graphs": True, "fused": False}
    found.append(Step("decode-bf16-graphs-plain", "right", 90, "numerics:decoding", options))
    for name, options in {
        "records": {"data": "records"},
        "records-lora": {"data": "records", "extra": ["--lora"]},
        "text": {"data": "text"},
        "text-lora": {"data": "text", "extra": ["--lora"]},
    }.items():
        found.append(Step(f"finetune-{name}", "right", 90, "finetuning:against_cpu", options))
    for name, extra, kill in (
        ("full", [], "SIGTERM"),
        ("lora", ["--lora"], "SIGKILL"),
        ("checkpointing", ["--grad-checkpointing"], "SIGTERM"),
        ("sampled", ["--sampled-softmax", "4096", "--optimizer", "muon"], "SIGKILL"),
        ("compile", ["--compile"], "SIGTERM"),
    ):
        limit = 150 if name == "compile" else 90
        found.append(Step(f"resume-{name}", "right", limit, "finetuning:resume", {"extra": extra, "kill": kill}))
    commands = {"memory": 60, "evaluate": 90, "quantized": 90, "chat": 60, "explain": 60, "logprobs": 120}
    for name, limit in commands.items():
        found.append(Step(name, "right", limit, f"commands:{name}"))
    return [*found, Step("serve", "right", 150, "commands:serve"), Step("torchrun", "right", 90, "finetuning:torchrun")]


def fast_steps() -> list[Step]:
    found = [Step("card", "fast", 20, "card:card")]
    for size in ("124m", "1.5b"):
        large = size == "1.5b"
        found += [
            Step(f"speed-decode-{size}", "fast", 60, "speed_decode:ours", {"size": size, "graphs": True}),
            Step(f"speed-decode-{size}-eager", "fast", 60, "speed_decode:ours", {"size": size, "graphs": False}),
            Step(f"peer-decode-{size}", "fast", 150, "speed_decode:peer", {"size": size}, slow_peer=large),
            Step(f"speed-prefill-{size}", "fast", 30, "speed_decode:prefill", {"size": size}),
        ]
        for data in ("text", "records"):
            for lora in (False, True):
                options = {"size": size, "data": data, "lora": lora}
                name = f"train-{data}-{size}{'-lora' if lora else ''}"
                for compiled in (False, True):
                    mine = f"speed-{name}{'-compile' if compiled else ''}"
                    limit = 120 if compiled else 60
                    found.append(Step(mine, "fast", limit, "speed_train:ours", options | {"compiled": compiled}))
                found.append(Step(f"peer-{name}", "fast", 60, "speed_train:peer", options, slow_peer=large))
    for what, function in {
        "decode": "decode",
        "text": "text",
        "text-compile": "text_compiled",
        "records": "records",
    }.items():
        found.append(Step(f"profile-{what}", "fast", 60, f"profiling:{function}"))
    return found


def main() -> None:
    args = parse_arguments()
    chosen = choose(args.steps, args.slow_peers)
    if args.list:
        for step in chosen:
            print(f"{step.name:32} {step.group:6} {step.limit:4.0f} s{'  slow peer' if step.slow_peer else ''}")
    else:
        sys.exit(Driver(args).run(chosen))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes and short texts")
    parser.add_argument("--out", type=Path, default=Path("on_gpu"), metavar="DIR")
    parser.add_argument("--jobs", type=int, default=1, help="steps of `right` at a time")
    parser.add_argument("--no-slow-peers", dest="slow_peers", action="store_false", help="leave out 1.5B peers")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def choose(patterns: list[str], slow_peers: bool) -> list[Step]:
    """The steps that the patterns name, in the patterns' order, each once. Exits with 1 if a pattern names none."""
    found = steps()
    chosen: dict[str, Step] = {}
    for pattern in patterns or ["*"]:
        named = {step.name: step for step in found if fits(step, pattern)}
        if not named:
            sys.exit(f"no step is called {pattern}: see --list")
        chosen = chosen | named
    return [step for step in chosen.values() if slow_peers or not step.slow_peer]


def fits(step: Step, pattern: str) -> bool:
    return pattern == step.group or fnmatch.fnmatch(step.name, pattern)


class Driver:
    """Starts the steps, and writes what they report."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.lock = threading.Lock()
        self.begun = time.monotonic()
        self.failed: list[str] = []
        self.running: set[BaseProcess] = set()
        self.ended = False
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["tests.gpu.preload"])
        args.out.mkdir(parents=True, exist_ok=True)
        self.results = (args.out / "results.jsonl").open("a", encoding="utf-8")

    def run(self, chosen: list[Step]) -> int:
        signal.signal(signal.SIGTERM, self.end)
        right = [step for step in chosen if step.group == "right"]
        fast = [step for step in chosen if step.group == "fast"]
        with tempfile.TemporaryDirectory(prefix="on_gpu-", ignore_cleanup_errors=True) as work:
            os.environ.update(environment(Path(work)))
            try:
                jobs = max(1, min(self.args.jobs, len(right) or 1))
                with ThreadPoolExecutor(jobs) as pool:
                    list(pool.map(lambda step: self.run_aside(step, Path(work), jobs), right))
                for step in fast:
                    self.finish(self.start(step, Path(work), 1))
            except BaseException:
                self.kill_all()
                raise
        seconds = time.monotonic() - self.begun
        print(f"{len(chosen)} steps in {seconds:.0f} s; failed: {', '.join(self.failed) or 'none'}", flush=True)
        return 1 if self.failed else 0

    def end(self, *_: object) -> None:
        """On SIGTERM: end the steps, which other threads wait for, and leave."""
        self.ended = True
        self.kill_all()
        sys.exit(143)

    def kill_all(self) -> None:
        for process in list(self.running):
            kill_group(process, signal.SIGKILL)

    def run_aside(self, step: Step, work: Path, jobs: int) -> None:
        """Run a step in a thread of its own."""
        if not self.ended:
            self.finish(self.start(step, work, jobs))

    def start(self, step: Step, work: Path, jobs: int) -> "Running":
        """Start a process for a step: a copy of one that has imported what all steps need."""
        receive, send = self.processes.Pipe(duplex=False)
        folder = work / step.name
        folder.mkdir()
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        process = self.processes.Process(target=run_step, args=(step.name, self.args, folder, threads, send))
        process.start()
        send.close()
        self.running.add(process)
        return Running(step, process, receive, folder / "log")

    def finish(self, running: "Running") -> None:
        """Write the results of a step while it runs, and end it at its limit."""
        step, process, start = running.step, running.process, time.monotonic()
        limit = step.limit * (TINY_FACTOR if self.args.tiny else 1)
        reader = threading.Thread(target=self.read, args=(running,), daemon=True)
        reader.start()
        process.join(limit)
        error = None if process.exitcode is not None else f"ended at its limit of {limit:.0f} s"
        kill_group(process, signal.SIGTERM if error else signal.SIGKILL)
        if error:
            process.join(GRACE)
            kill_group(process, signal.SIGKILL)
        process.join()
        self.running.discard(process)
        reader.join(GRACE)
        if self.ended:
            return
        if error is None and process.exitcode not in (0, 1):
            error = f"exit code {process.exitcode}"
        if error or (process.exitcode == 1 and running.failures == 0):
            log = running.log.read_text(errors="replace").splitlines()[-12:]
            seconds = round(time.monotonic() - start, 2)
            self.write({"step": step.name, "ok": False, "seconds": seconds, "error": error or "failed", "log": log})

    def read(self, running: "Running") -> None:
        """Pass on what a step reports, a line at a time."""
        with os.fdopen(os.dup(running.pipe.fileno()), encoding="utf-8") as lines:
            for line in lines:
                result = json.loads(line)
                running.failures += not result["ok"]
                self.write(result)

    def write(self, result: dict) -> None:
        with self.lock:
            self.results.write(json.dumps(result) + "\n")
            self.results.flush()
            os.fsync(self.results.fileno())
            print(compact(result), flush=True)
            if not result["ok"] and result["step"] not in self.failed:
                self.failed.append(result["step"])


@dataclass
class Running:
    """A step's process, the pipe that its results come from, and its log."""

    step: Step
    process: BaseProcess
    pipe: Connection
    log: Path
    failures: int = 0


def environment(work: Path) -> dict[str, str]:
    """What the steps' processes, and the commands that they start, see."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "GPT2CLI_HOME": str(work / "home"),
        "HF_HOME": str(work / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_COLOR": "1",
        "GOMP_SPINCOUNT": "1000",  # as the command sets it, for a machine that others use too
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # a process that initialized CUDA cannot be copied
    }


def kill_group(process: BaseProcess, number: int) -> None:
    """Signal a step and all it started; the group may be gone, or not there yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


SHOWN = 200


def compact(result: dict) -> str:
    """A result in a line."""
    state = "skip" if "skipped" in result else "ok" if result["ok"] else "FAIL"
    hidden = ("step", "case", "ok", "seconds", "card", "torch", "log", "formula")
    figures = " ".join(f"{name}={short(value)}" for name, value in result.items() if name not in hidden)
    name = " ".join(filter(None, [result["step"], result.get("case")]))
    line = f"{state:4} {name:44} {result['seconds']:6.1f}s {figures}"
    return line if state != "FAIL" else "\n     | ".join([line, *result.get("log", [])[-8:]])


def short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def run_step(name: str, args: argparse.Namespace, folder: Path, threads: int, send: Connection) -> None:
    """Run one step in this process, and leave with 1 if anything it reported failed."""
    if not os.environ.get(FRESH):
        os.setsid()
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    from tests.gpu.common import Context

    if args.device == "cuda" and torch.cuda._is_in_bad_fork():  # an import initialized CUDA: start from nothing
        os.environ[FRESH] = "1"
        process = multiprocessing.get_context("spawn").Process(
            target=run_step, args=(name, args, folder, threads, send)
        )
        process.start()
        process.join()
        sys.exit(process.exitcode)
    torch.set_num_threads(threads)
    [step] = [step for step in steps() if step.name == name]
    module, _, function = step.function.partition(":")
    context = Context(name, args.device, args.tiny, args.out.resolve(), folder, os.dup(send.fileno()))
    try:
        context.begin()
        getattr(importlib.import_module(f"tests.gpu.{module}"), function)(context, **step.options)
    except Exception as error:
        lines = traceback.format_exc().splitlines()[-12:]
        print("\n".join(lines), file=sys.stderr)
        context.report(ok=False, error=f"{type(error).__name__}: {str(error)[:600]}", log=lines)
    sys.exit(1 if context.failures else 0)


if __name__ == "__main__":
    main()
