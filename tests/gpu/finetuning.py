"""`gpt2 finetune` as a process on the device: beside the CPU, ended and resumed, and started by torchrun.

All runs train the bundled `tiny` for 20 steps. bf16 autocast rounds to 2^-9 in each product; the loss of a step is a
mean over hundreds of tokens, whose errors largely cancel. A first loss may differ by 0.5 % from the CPU's in fp32, and
later ones, to which the differences of the weights add up, by 2 %.
"""

import json
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from gpt2cli.training.loss import SequenceLoss
from tests.gpu.common import COMMAND, Context, cli, random_model, relative, write_records, write_text
from tests.gpu.numerics import loss_and_gradient, packed_data
from tests.runner import free_port

STEPS = 20
FIRST, LATER = 5e-3, 2e-2
TEXT_RATE = 3e-4

STOP = """
import os, runpy, signal, sys
from gpt2cli.training import events
begin = events.Step.__init__
def stopping(self, **fields):
    begin(self, **fields)
    if fields["step"] == {step}:
        os.kill(os.getpid(), signal.{number})
events.Step.__init__ = stopping
runpy.run_module("gpt2cli", run_name="__main__", alter_sys=True)
"""
"""The command, which gets a signal at the end of a certain step."""


def arguments(context: Context, data: str, name: str, *extra: object) -> list[object]:
    """A run of 20 steps, called `name`, on records or on text. A block of text is as long as the window."""
    file = context.work / ("records.json" if data == "records" else "text.txt")
    if not file.exists():
        write_records(file, 220) if data == "records" else write_text(file, 1500)
    fixed = ["finetune", "--model", "tiny", "--data", file, "--max-steps", STEPS, "--warmup", 3]
    fixed += [
        "--batch-size",
        8 if data == "records" else 2,
        "--eval-every",
        10,
        "--sample-every",
        0,
        "--save-every",
        5,
        "--quiet",
        "--offline",
    ]
    fixed += ["--run-dir", context.work / name, "--out", context.work / f"{name}.pt"]
    return [*fixed, *([] if {"--lora", "--lr"} & set(extra) else ["--lr", 1e-3]), *extra]


def losses(context: Context, name: str) -> list[float]:
    lines = map(json.loads, (context.work / name / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "step"]


def weights(context: Context, name: str) -> dict[str, torch.Tensor]:
    return torch.load(context.work / f"{name}.pt", weights_only=True)["model"]


def same_bits(context: Context, one: str, other: str) -> dict[str, object]:
    """Whether two runs' weights and losses are equal, and if not, how far apart they are."""
    ours, theirs = weights(context, one), weights(context, other)
    equal = all(torch.equal(ours[name], theirs[name]) for name in ours) and ours.keys() == theirs.keys()
    furthest = max(relative(ours[name], theirs[name]) for name in ours)
    same = losses(context, one) == losses(context, other)
    return {"weights_equal": equal, "losses_equal": same, "furthest_l2": furthest}


def at_once(*runs: Sequence[object]) -> None:
    """Run several commands at the same time."""
    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(lambda arguments: cli(*arguments), runs))


def against_cpu(context: Context, data: str, extra: Sequence[str] = ()) -> None:
    """Without dropout, in bf16 on the device: the loss falls, and is near the CPU's in fp32 at every step.

    The learning rate is one at which the loss falls steadily. With 1e-3, the first full step on text overshoots: the
    loss rises and the gradient doubles, so that rounding errors of the weights grow to 3 % of the loss.
    """
    rate = 3e-3 if "--lora" in extra else TEXT_RATE if data == "text" else 1e-3
    fixed = ["--dropout", 0, "--lr", rate, *extra]
    on_device = arguments(context, data, "device", "--device", context.device.type, "--precision", "bf16", *fixed)
    on_cpu = arguments(context, data, "cpu", "--device", "cpu", "--precision", "fp32", *fixed)
    at_once(on_device, on_cpu)
    ours, theirs = losses(context, "device"), losses(context, "cpu")
    apart = [abs(a - b) / b for a, b in zip(ours, theirs, strict=True)]
    summary = json.loads((context.work / "device" / "summary.json").read_text())
    memory = {name: value for name, value in summary.items() if "mb" in name.split("_") or "memory" in name}
    first, last = sum(ours[:5]) / 5, sum(ours[-5:]) / 5
    good = last < first and len(ours) == STEPS and apart[0] <= FIRST and max(apart) <= LATER
    context.report(
        None, good, first=first, last=last, apart_first=apart[0], apart_most=max(apart), bound=LATER, **memory
    )


def resume(context: Context, extra: Sequence[str], kill: str) -> None:
    """With dropout: the same run twice, and one that is ended in its 10th or 13th step and resumed, bit for bit."""
    fixed = ["--device", context.device.type, *([] if context.cuda else ["--precision", "fp32"]), *extra]
    runs = [arguments(context, "records", name, *fixed) for name in ("whole", "again")]
    if "--grad-checkpointing" in extra:
        runs.append(arguments(context, "records", "plain", *[option for option in fixed if option not in extra]))
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end_and_resume, context, fixed, kill)
        at_once(*runs)
        ended.result()
    report_same(context, "repeated", "whole", "again")
    report_same(context, "resumed", "whole", "ended")
    if "--grad-checkpointing" in extra:
        pairs = zip(losses(context, "whole"), losses(context, "plain"), strict=True)
        apart = max(abs(a - b) / b for a, b in pairs)
        context.report("as-without", apart <= 1e-3, apart_most=apart, bound=1e-3)


def report_same(context: Context, case: str, one: str, other: str) -> None:
    found = same_bits(context, one, other)
    context.report(case, found["weights_equal"] and found["losses_equal"], **found)


def end_and_resume(context: Context, fixed: Sequence[object], kill: str) -> None:
    """A run that SIGTERM ends behind its 10th step, or SIGKILL in its 13th, three steps after it was saved."""
    graceful = kill == "SIGTERM"
    code = STOP.format(step=10 if graceful else 13, number=kill)
    expected = 143 if graceful else -signal.SIGKILL
    cli(*arguments(context, "records", "ended", *fixed), code=expected, command=[sys.executable, "-c", code])
    if (context.work / "ended.pt").exists():
        raise RuntimeError("the run that was ended wrote its result")
    device = ["--device", context.device.type]
    compiled = ["--compile"] if "--compile" in fixed else []
    cli("finetune", "--resume", context.work / "ended", "--quiet", *device, *compiled)


def torchrun(context: Context) -> None:
    """One process of torchrun gives the same losses as none; and so does DistributedDataParallel over nccl, or gloo."""
    fixed = ["--device", context.device.type, *([] if context.cuda else ["--precision", "fp32"])]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
    launch += ["--master-port", str(free_port()), *COMMAND[1:]]
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(cli, *arguments(context, "records", "plain", *fixed))
        pool.submit(cli, *arguments(context, "records", "launched", *fixed), command=launch).result()
        plain.result()
    ours, theirs = losses(context, "launched"), losses(context, "plain")
    apart = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
    context.report("launched", apart <= 1e-4 and len(ours) == STEPS, apart_most=apart, bound=1e-4)
    distributed(context)


def distributed(context: Context) -> None:
    """A group of one process: with a world of one, the command itself joins none."""
    backend = "nccl" if context.cuda else "gloo"
    store = f"file://{context.work / 'store'}"
    torch.distributed.init_process_group(backend, init_method=store, rank=0, world_size=1)
    try:
        data, model = packed_data(6), random_model(context.shape("124m"), context.device)
        loss, expected = loss_and_gradient(model, data, None)
        model.zero_grad()
        wrapped = nn.parallel.DistributedDataParallel(SequenceLoss(model), gradient_as_bucket_view=True)
        again, found = loss_and_gradient(model, data, None, wrapped)
    finally:
        torch.distributed.destroy_process_group()
    error = relative(found, expected)
    context.report(backend, error <= 1e-4 and abs(again - loss) <= 1e-4 * loss, gradient_l2=error, bound=1e-4)
