"""`gpt2 finetune`: what it writes, and that nothing which happens to it costs more than a little time."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.cli.environment import Environment, NotesStream
from gpt2cli.cli.main import main
from gpt2cli.config import GPTConfig
from gpt2cli.model.device import fast_training_dtype
from tests import models
from tests.data.records import write_table
from tests.runner import (
    PATIENCE,
    Pipe,
    clean_environment,
    free_port,
    little_room,
    process_left_alone,
    run_here,
    signal_when,
)
from tests.training.records import write_records

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=64)
COMMAND = [sys.executable, "-m", "gpt2cli", "finetune"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(models.save_hub_directory(models.small_model(SHAPE), tmp_path_factory.mktemp("base")))


@pytest.fixture
def args(base, tmp_path):
    return arguments(base, tmp_path)


def arguments(base: str, work: Path) -> list[str]:
    """A short run: 48 records, 3 epochs of 6 steps, saved at every step."""
    data = write_records(work / "records.json", 48)
    fixed = ["--model", base, "--data", str(data), "--val-fraction", "0.125", "--batch-size", "7", "--lr", "3e-3"]
    fixed += ["--save-every", "1", "--sample-every", "0", "--eval-every", "6", "--device", "cpu", "--epochs", "3"]
    return [*fixed, "--run-dir", str(work / "run"), "--out", str(work / "out.pt")]


def finetune(*args: str) -> "subprocess.CompletedProcess[str]":
    return run_here("finetune", *args)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def learned(run: Path) -> list[tuple]:
    """What must be the same to the bit: the losses of all steps and evaluations."""
    return [(line["step"], line["kind"], line.get("loss", line.get("val_loss"))) for line in metrics(run)]


def test_it_trains_and_writes_what_the_contract_says(args, tmp_path, run, home):
    done = finetune(*args, "--sample-every", "9", "--json")
    assert done.returncode == 0, done.stderr
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds.count("step") == 18
    assert kinds[:2] == ["plan", "started"]
    assert kinds[-2:] == ["finished", "wrote"]
    wrote = {"kind": "wrote", "out": str(tmp_path / "out.pt"), "run": str(tmp_path / "run"), "best": None}
    assert json.loads(done.stdout.splitlines()[-1]) == wrote
    names = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")}
    assert names == {"config.json", "metrics.jsonl", "samples.md", "loss.png", "summary.json"}
    steps = [line for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    fields = "kind step epoch loss smoothed_loss lr grad_norm tokens targets tok_s"
    assert set(steps[0]) == set(fields.split())
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    wanted = "steps tokens_seen train_seconds train_tok_s peak_rss_mb final_train_loss final_val_loss best_val_loss"
    assert set(wanted.split()) <= set(summary)
    assert summary["tokens_seen"] == sum(step["tokens"] for step in steps)
    assert summary["final_train_loss"] == steps[-1]["smoothed_loss"] == steps[-1]["loss"]
    assert summary["final_train_loss_steps"] == 1  # a tenth of the run
    assert "of the lowest validation loss" not in done.stderr  # which is the last one
    assert summary["out"] == summary["best_weights"] == str(tmp_path / "out.pt")
    saved = torch.load(tmp_path / "out.pt", weights_only=True)
    assert {"config", "model", "template", "provenance"} <= set(saved)
    assert "### Instruction" in json.dumps(saved["template"])
    told = run("generate", "The", "--ckpt", str(tmp_path / "out.pt"), "-n", "3", "--seed", "1", "--json")
    assert len(json.loads(told.stdout)["tokens"]) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lora_trains_an_adapter_and_leaves_the_base_alone(args, base, tmp_path, run, precision):
    before = (Path(base) / "model.safetensors").read_bytes()
    more = ["--precision", precision, "--sample-every", "9"]
    done = finetune(*args, "--lora", "--lora-rank", "4", "--lr", "1e-2", *more)
    assert done.returncode == 0, done.stderr
    slowly = precision == "bf16" and fast_training_dtype(torch.device("cpu")) is None
    assert ("bf16 many times more slowly" in done.stderr) == slowly
    assert (Path(base) / "model.safetensors").read_bytes() == before
    steps = [line["loss"] for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    assert steps[-1] < steps[0] - 0.2
    prompt = ("generate", "The", "-n", "9", "--temp", "0")
    merged = run(*prompt, "--ckpt", str(tmp_path / "out.pt"))
    adapter = run(*prompt, "--model", base, "--ckpt", str(tmp_path / "run" / "adapter"))
    assert merged.returncode == adapter.returncode == 0, adapter.stderr
    assert merged.stdout == adapter.stdout
    # whatever the base was held in, it is merged into as it was
    weights, expected = load_plain(ckpt=tmp_path / "out.pt"), load_plain(base, ckpt=tmp_path / "run" / "adapter")
    torch.testing.assert_close(weights.state_dict(), expected.state_dict(), atol=1e-7, rtol=1e-6)
    # the last evaluation is the best one
    assert not (tmp_path / "run" / "best-adapter").exists()


def test_a_directory_of_a_models_name_is_not_the_model(tmp_path, monkeypatch):
    """As for `generate`, and for the adapter that is written."""
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "gpt2"):
        (tmp_path / name).mkdir()
    (tmp_path / "tale.txt").write_text("Once there was a fox who liked the rain. " * 30)
    done = finetune(
        *("--model", "tiny", "--data", "tale.txt", "--lora", "--max-steps", "1", "--run-dir", "run"), *("--out", "o.pt")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == "tiny"
    adapter = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny"


def test_from_scratch_on_plain_text(tmp_path):
    (tmp_path / "tale.txt").write_text("Once there was a fox who liked the rain. " * 60)
    shape = ["--n-layer", "1", "--n-head", "2", "--n-embd", "32", "--block-size", "32"]
    done = finetune(
        "--from-scratch", *shape, "--data", str(tmp_path / "tale.txt"), "--max-steps", "12", "--lr", "1e-2",
        "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "out.safetensors"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [line["loss"] for line in metrics(tmp_path / "run") if line["kind"] == "step"]
    assert len(steps) == 12
    assert steps[-1] < steps[0] - 2
    assert (tmp_path / "out.safetensors").is_file()


def test_the_best_weights_are_told_of_where_the_last_ones_are_worse(args, tmp_path, run):
    done = finetune(*args, "--lr", "1", "--warmup", "10", "--schedule", "constant", "--eval-every", "3")
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run" / "best.pt"
    assert f"the weights of the lowest validation loss are in {best}" in done.stderr
    saved = torch.load(best, weights_only=True)["provenance"]
    losses = {line["step"]: line["val_loss"] for line in metrics(tmp_path / "run") if line["kind"] == "eval"}
    assert losses[saved["step"]] == saved["losses"]["val"] == min(losses.values())
    assert run("generate", "The", "--ckpt", str(best), "-n", "3").returncode == 0


def test_an_adapter_never_takes_the_place_of_what_it_is_for(args, tmp_path):
    assert finetune(*args, "--max-steps", "1").returncode == 0
    before = (tmp_path / "out.pt").read_bytes()
    lora = ["--ckpt", str(tmp_path / "out.pt"), "--lora", "--run-dir", str(tmp_path / "lora"), "--max-steps", "2"]
    args = args[args.index("--data") :]
    done = finetune(*args, *lora, "--force")
    assert done.returncode == 2
    assert "belongs to the model that the adapter is for: choose another --out" in done.stderr
    assert not (tmp_path / "lora").exists()
    assert finetune(*args, *lora, "--out", str(tmp_path / "tuned.pt"), "--keep-states").returncode == 0
    assert (tmp_path / "out.pt").read_bytes() == before
    (tmp_path / "tuned.pt").rename(tmp_path / "out.pt")
    changed = finetune("--resume", str(tmp_path / "lora"))
    assert changed.returncode == 4
    assert "the model that the adapter is for has changed" in changed.stderr


def test_records_that_are_left_out_or_cut_are_told(args, tmp_path):
    records = json.loads((tmp_path / "records.json").read_text())
    records[0]["output"], records[1]["output"] = "", "red " * 99
    (tmp_path / "records.json").write_text(json.dumps(records))
    done = finetune(*args, "--max-steps", "1")
    assert "47 of 48 records kept · 1 cut to 64 tokens · 1 dropped for want of an output" in done.stderr


def test_a_run_that_did_not_begin_leaves_no_directory(args, tmp_path):
    assert finetune(*args, "--data", str(tmp_path / "missing.json")).returncode == 2
    assert not (tmp_path / "run").exists()
    assert finetune("--resume", str(tmp_path / "nowhere")).returncode == 4
    assert not (tmp_path / "nowhere").exists()
    refused = finetune(*args, "--patience", "2", "--val-fraction", "0")
    assert (refused.returncode, "--patience needs evaluations, and no data is held" in refused.stderr) == (2, True)
    refused = finetune(*args, "--patience", "2", "--eval-every", "0")
    assert (refused.returncode, "--patience needs evaluations, and --eval-every 0 " in refused.stderr) == (2, True)
    (tmp_path / "file").touch()
    assert finetune(*args, "--run-dir", str(tmp_path / "file")).returncode == 2


def test_resume_prefers_a_run_that_is_not_done_and_remembers_its_out(args, tmp_path, home):
    args = [arg for arg in args if arg not in ("--run-dir", str(tmp_path / "run"))]
    with signal_when(lambda: bool(list(home.glob("runs/*/checkpoints/step-00000003"))), signal.SIGTERM):
        assert finetune(*args).returncode == 143
    (ended,) = home.glob("runs/*")
    (ended / "summary.json").unlink()  # as if it had been killed
    assert finetune(*args, "--out", str(tmp_path / "second.pt"), "--max-steps", "1").returncode == 0
    named = finetune("--resume", "--out", str(tmp_path / "third.pt"))
    assert named.returncode == 0, named.stderr
    assert (ended / "summary.json").exists() and (tmp_path / "third.pt").exists()
    assert json.loads((ended / "config.json").read_text())["out"] == str(tmp_path / "third.pt")
    assert not (tmp_path / "out.pt").exists()


def test_the_best_weights_are_no_place_for_the_last_ones(args, tmp_path):
    done = finetune(*args, "--out", str(tmp_path / "run" / "best.pt"))
    assert done.returncode == 2
    assert "choose another --out" in done.stderr


def start(args: list[str], until_step: int, run: Path) -> "subprocess.Popen[str]":
    """A run that has come to this step."""
    process = subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "checkpoints").is_dir() and list((run / "checkpoints").glob(f"step-{until_step:08d}")):
            return process
        time.sleep(0.005)
    raise AssertionError(process.communicate()[1])


@pytest.fixture(scope="module")
def unbroken(base, tmp_path_factory):
    """The directory of a run that nothing happened to. It keeps its best weights and its checkpoints."""
    work = tmp_path_factory.mktemp("unbroken")
    done = finetune(*arguments(base, work), "--keep-states")
    assert done.returncode == 0, done.stderr
    return work


def has_saved(run: Path, step: int) -> bool:
    return (run / "checkpoints" / f"step-{step:08d}").is_dir()


def in_a_process(args: list[str], run: Path, signum: int) -> int:
    """The exit code of a run in a process of its own, which gets a signal."""
    process = start(args, 5, run)
    process.send_signal(signum)
    process.communicate(timeout=PATIENCE)
    return process.returncode


def in_this_process(args: list[str], run: Path, signum: int) -> int:
    """The exit code of a run in this process, which gets a signal."""
    with signal_when(lambda: has_saved(run, 5), signum):
        return finetune(*args).returncode


SIGNALS = [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]


@pytest.mark.parametrize(
    ("ended", "how", "code"),
    [
        *((in_this_process, *each) for each in SIGNALS),
        *(pytest.param(in_a_process, *each, marks=pytest.mark.slow) for each in [("SIGKILL", -9), *SIGNALS]),
    ],
)
def test_an_ended_run_resumes_bit_for_bit(args, unbroken, tmp_path, ended, how, code):
    run = tmp_path / "run"
    assert ended([*args, "--keep-states"], run, getattr(signal, how)) == code
    assert not (tmp_path / "out.pt").exists()
    assert not has_saved(run, 18)
    done = finetune("--resume", str(tmp_path / "run"), "--out", str(tmp_path / "out.pt"))
    assert done.returncode == 0, done.stderr
    assert learned(tmp_path / "run") == learned(unbroken / "run")
    for file in ("out.pt", "run/best.pt"):
        expected, found = (torch.load(work / file, weights_only=True)["model"] for work in (unbroken, tmp_path))
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    again = finetune("--resume", "--run-dir", str(tmp_path / "run"), "--out", str(tmp_path / "out.pt"))
    assert again.returncode == 0
    assert learned(tmp_path / "run") == learned(unbroken / "run")


def test_a_signal_in_the_last_step_costs_no_weights(args, tmp_path):
    run = tmp_path / "run"
    with signal_when(lambda: [step for step, *_ in learned(run)[-1:]] == [4], signal.SIGINT):
        done = finetune(*args, "--max-steps", "4", "--save-every", "0")
    assert done.returncode == 130
    assert json.loads((run / "summary.json").read_text())["reason"] == "done"
    assert torch.load(tmp_path / "out.pt", weights_only=True)["provenance"]["step"] == 4


def is_evaluating(run: Path) -> bool:
    """Whether the last line is that of a step: after each, there is an evaluation."""
    lines = metrics(run) if (run / "metrics.jsonl").is_file() else []
    return bool(lines) and lines[-1]["kind"] == "step"


def is_saving(run: Path) -> bool:
    return any((run / "checkpoints").glob(".step-*.tmp"))


@pytest.mark.parametrize("phase", [is_evaluating, is_saving])
def test_a_signal_while_it_evaluates_or_saves_costs_nothing(args, tmp_path, phase):
    args = [*args, "--val-fraction", "0.5", "--eval-every", "1"]
    whole = finetune(*args, "--run-dir", str(tmp_path / "whole"), "--out", str(tmp_path / "whole.pt"))
    assert whole.returncode == 0, whole.stderr
    with signal_when(lambda: phase(tmp_path / "run"), signal.SIGTERM):
        ended = finetune(*args)
    assert ended.returncode == 143, ended.stderr
    done = finetune("--resume", str(tmp_path / "run"), "--out", str(tmp_path / "out.pt"))
    assert done.returncode == 0, done.stderr
    assert learned(tmp_path / "run") == learned(tmp_path / "whole")
    expected, found = (torch.load(tmp_path / name, weights_only=True)["model"] for name in ("whole.pt", "out.pt"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_signal_from_the_beginning_on_ends_it(args, tmp_path):
    # after .pid is there, the model is loaded
    with signal_when((tmp_path / "run" / ".pid").exists, signal.SIGTERM):
        assert finetune(*args, "--epochs", "300").returncode == 143
    assert not (tmp_path / "out.pt").exists()


def test_a_second_run_in_the_same_directory_is_refused(args, tmp_path):
    first = start([*args, "--epochs", "200"], 1, tmp_path / "run")
    second = finetune(*args)
    first.kill()
    first.communicate()
    assert second.returncode == 6
    assert f"locked by pid {first.pid}" in second.stderr


def test_resuming_with_other_settings_lists_them(args, tmp_path):
    assert finetune(*args, "--max-steps", "2", "--keep-states").returncode == 0
    (tmp_path / "out.pt").unlink()  # so that there is something left to do
    resume = ["--resume", str(tmp_path / "run"), "--out", str(tmp_path / "out.pt")]
    other = finetune(*resume, "--lr", "0.5", "--lora")
    assert other.returncode == 4
    assert "learning_rate was 0.003, is 0.5" in other.stderr
    assert "lora was False, is True" in other.stderr
    write_records(tmp_path / "records.json", 40)
    changed = finetune(*resume)
    assert changed.returncode == 4
    assert "the data has changed" in changed.stderr
    assert finetune("--resume", str(tmp_path / "nowhere")).returncode == 4
    assert finetune(str(tmp_path / "run")).returncode == 2


def test_the_config_of_a_run_gives_the_same_run_again(args, tmp_path):
    first, again = tmp_path / "run", tmp_path / "again"
    assert finetune(*args, "--max-steps", "3", "--lora", "--lora-rank", "2", "--seed", "5").returncode == 0
    there = finetune("--config", str(first), "--device", "cpu", "--run-dir", str(again))
    assert (there.returncode, again.exists()) == (2, False)
    assert f"{tmp_path / 'out.pt'} is there already: use --force to replace it, or choose another --out" in there.stderr
    place = ["--device", "cpu", "--run-dir", str(again), "--out", str(tmp_path / "again.pt")]
    done = finetune("--config", str(first / "config.json"), *place)
    assert done.returncode == 0, done.stderr
    assert learned(again) == learned(first)
    weights = [torch.load(tmp_path / name, weights_only=True)["model"] for name in ("out.pt", "again.pt")]
    assert all(torch.equal(weights[1][name], weights[0][name]) for name in weights[0])
    configs = [json.loads((run / "config.json").read_text()) for run in (first, again)]
    assert configs[1] == configs[0] | {"out": str(tmp_path / "again.pt")}


def test_paths_in_a_config_are_relative_to_the_working_directory(base, tmp_path, monkeypatch):
    write_records(tmp_path / "records.json", 20)
    (tmp_path / "recipes").mkdir()
    values = {"model": base, "data": "records.json", "out": "quiz.pt", "train": {"max_steps": 2, "loss_on": "all"}}
    (tmp_path / "recipes" / "quiz.json").write_text(json.dumps(values))
    monkeypatch.chdir(tmp_path)
    planned = finetune("--config", "recipes/quiz.json", "--device", "cpu", "--dry-run", "--max-steps", "7")
    assert planned.returncode == 0, planned.stderr
    assert "7 steps" in planned.stdout
    values["data"] = None
    (tmp_path / "recipes" / "quiz.json").write_text(json.dumps(values))
    decided = finetune("--config", "recipes/quiz.json", "--device", "cpu", "--dry-run")
    assert decided.returncode == 2
    assert "--loss-on cannot change prepared data" in decided.stderr


def test_a_run_keeps_the_columns_of_its_records(args, tmp_path):
    colours = json.loads((tmp_path / "records.json").read_text())
    rows = [{"Frage": each["instruction"], "Antwort": each["output"], "Nr": "1"} for each in colours]
    data = ["--data", str(write_table(tmp_path / "fragen.csv", rows, ";")), "--max-steps", "1"]
    unknown = finetune(*args, *data)
    assert unknown.returncode == 3
    assert "as in --columns instruction=Frage,output=Antwort" in unknown.stderr
    done = finetune(*args, *data, "--columns", "output=Antwort,instruction=frage")
    assert done.returncode == 0
    assert "takes Frage as instruction, Antwort as output; semicolons separate the columns" in done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["columns"]["output"] == "Antwort"
    resume = ["--resume", str(tmp_path / "run"), "--out", str(tmp_path / "again.pt")]
    other = finetune(*resume, "--columns", "instruction=Frage,output=Nr")
    assert other.returncode == 4
    assert "columns was 'instruction=frage,output=Antwort', is 'instruction=Frage,output=Nr'" in other.stderr
    same = finetune("--resume", str(tmp_path / "run"), "--columns", "instruction=frage,output=Antwort")
    assert (same.returncode, "nothing to do" in same.stderr) == (0, True)


def test_a_damaged_newest_checkpoint_falls_back_and_a_named_one_is_refused(args, tmp_path):
    assert finetune(*args, "--max-steps", "4", "--keep-states").returncode == 0
    (tmp_path / "out.pt").unlink()
    newest = tmp_path / "run" / "checkpoints" / "step-00000004"
    (newest / "weights.safetensors").write_bytes(b"nothing")
    named = finetune("--resume", str(newest))
    assert named.returncode == 4
    assert "damaged" in named.stderr
    done = finetune("--resume", str(tmp_path / "run"), "--out", str(tmp_path / "out.pt"))
    assert done.returncode == 0
    assert "step-00000004/weights.safetensors is damaged" in done.stderr


def test_a_run_that_diverges_ends_with_7(args, tmp_path):
    done = finetune(*args, "--lr", "1e30", "--warmup", "0")
    assert done.returncode == 7
    assert "error: loss" in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()
    assert not (tmp_path / "out.pt").exists()


def test_a_validation_loss_that_is_not_finite_is_7_and_not_saved(args, tmp_path):
    done = finetune(*args, "--lr", "1e30", "--warmup", "0", "--eval-every", "1")
    assert done.returncode == 7
    assert "error: validation loss nan after step 1" in done.stderr
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_full_disk_is_6_and_costs_no_checkpoint(args, tmp_path):
    constant = ["--schedule", "constant", "--warmup", "0", "--keep-states"]
    assert finetune(*args, "--max-steps", "2", *constant).returncode == 0
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    with little_room(100_000):
        done = finetune("--resume", str(tmp_path / "run"), "--max-steps", "4")
    assert done.returncode == 6, done.stderr
    assert "the last checkpoint is intact" in done.stderr
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before


def torchrun(*args: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
        *args,
    ]


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param([], id="full"),
        pytest.param(["--lora"], id="lora", marks=pytest.mark.slow),
        pytest.param(["--optimizer", "muon"], id="muon", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(args, tmp_path, extra):
    args = [*args, "--dropout", "0", "--max-steps", "6", "--precision", "fp32", *extra]
    assert finetune(*args, "--batch-size", "6", "--run-dir", str(tmp_path / "one")).returncode == 0
    args += ["--keep-states"]
    two = [*args, "--batch-size", "3", "--run-dir", str(tmp_path / "two"), "--out", str(tmp_path / "two.pt")]
    done = subprocess.run(
        torchrun("-m", "gpt2cli", "finetune", *two),
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the run is in") == 1
    expected, found = learned(tmp_path / "one"), learned(tmp_path / "two")
    assert [line[:2] for line in found] == [line[:2] for line in expected]
    assert [line[2] for line in found] == pytest.approx([line[2] for line in expected], rel=1e-4)
    assert (tmp_path / "two" / ("best-adapter" if "--lora" in extra else "best.pt")).exists()


@pytest.mark.slow
def test_when_one_process_dies_the_others_go(args, tmp_path):
    command = torchrun("-m", "gpt2cli", "finetune", *args, "--epochs", "300")
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=clean_environment())
    while not (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir():
        assert process.poll() is None
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    began = time.monotonic()
    assert process.wait(timeout=PATIENCE) != 0
    assert time.monotonic() - began < 60
    assert not Path(f"/proc/{workers[0]}").exists()


def test_a_run_is_gone_on_with_from_anywhere_and_ends_where_it_was_to(args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = [arg.replace(f"{tmp_path}/", "") for arg in args]
    with signal_when(lambda: has_saved(tmp_path / "run", 3), signal.SIGINT):
        ended = finetune(*relative)
    assert "to continue: gpt2 finetune --resume run" in ended.stderr
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = finetune("--resume", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.pt").is_file()
    assert not (tmp_path / "elsewhere" / "finetuned.pt").exists()
    again = finetune(*args, "--force")
    assert again.returncode == 2
    assert "holds a run already" in again.stderr


def stamps(*roots: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and what is in it, but for those that only the lock needs."""
    files = [file for root in roots for file in (root.rglob("*") if root.is_dir() else [root]) if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files if file.name not in (".lock", ".pid")}


def test_a_run_that_is_done_is_not_written_again(args, tmp_path, home):
    args = [*args[: args.index("--run-dir")], "--max-steps", "2", "--out", str(tmp_path / "out.pt"), "--keep-states"]
    assert finetune(*args).returncode == 0
    [run] = home.glob("runs/*")
    before = stamps(run, tmp_path / "out.pt")
    for which in ([], [str(run)], [run.name], ["--run-dir", str(run), "--out", str(tmp_path / "out.pt")]):
        again = finetune("--resume", *which)
        assert (again.returncode, "nothing to do" in again.stderr) == (0, True), again.stderr
        assert stamps(run, tmp_path / "out.pt") == before
    other = finetune("--resume", str(run), "--out", str(tmp_path / "other.pt"))
    assert other.returncode == 0, other.stderr
    written = [torch.load(tmp_path / name, weights_only=True)["model"] for name in ("out.pt", "other.pt")]
    assert all(torch.equal(written[1][name], tensor) for name, tensor in written[0].items())
    (tmp_path / "other.pt").unlink()
    assert finetune("--resume", str(run)).returncode == 0
    assert (tmp_path / "other.pt").is_file()  # a file that is gone is written again


def test_a_run_that_is_done_and_kept_no_checkpoint_does_not_begin_anew(args, tmp_path):
    assert finetune(*args, "--max-steps", "1", "--save-every", "0").returncode == 0
    before = stamps(tmp_path)
    again = finetune("--resume", str(tmp_path / "run"))
    assert (again.returncode, "nothing to do" in again.stderr) == (0, True), again.stderr
    assert stamps(tmp_path) == before


def test_final_weights_that_were_not_written_are_no_end(args, tmp_path):
    assert finetune(*args, "--max-steps", "2", "--keep-states").returncode == 0
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"out": None}))  # as if killed at that moment
    (tmp_path / "out.pt").write_bytes(b"of somebody else")
    assert finetune("--resume", str(tmp_path / "run")).returncode == 2
    assert (tmp_path / "out.pt").read_bytes() == b"of somebody else"
    assert finetune("--resume", str(tmp_path / "run"), "--force").returncode == 0
    assert "model" in torch.load(tmp_path / "out.pt", weights_only=True)
    assert json.loads(summary.read_text())["out"] == str(tmp_path / "out.pt")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_adapter_is_trained_on_from_an_adapter(args, tmp_path, precision):
    short = [*args, "--max-steps", "2", "--lora", "--lora-rank", "2", "--lr", "1e-2", "--precision", precision]
    first, second = tmp_path / "run", tmp_path / "second"
    assert finetune(*short).returncode == 0
    begun = load_plain(ckpt=first / "adapter").state_dict()
    short = [*short[short.index("--data") :], "--ckpt", str(first / "adapter"), "--run-dir", str(second)]
    short += ["--keep-states"]
    done = finetune(*short, "--out", str(tmp_path / "second.pt"))
    assert done.returncode == 0, done.stderr
    base, adapted = (load_plain(ckpt=second / name).state_dict() for name in ("base.safetensors", "adapter"))
    torch.testing.assert_close(base, begun, atol=0, rtol=0)
    torch.testing.assert_close(load_plain(ckpt=tmp_path / "second.pt").state_dict(), adapted, atol=1e-7, rtol=1e-6)
    assert not torch.equal(adapted["h.0.mlp.c_fc.weight"], begun["h.0.mlp.c_fc.weight"])
    assert load_plain(ckpt=second / "best-adapter").origin.precision == "fp32"
    (tmp_path / "second.pt").unlink()
    resumed = finetune("--resume", str(second))
    assert resumed.returncode == 0, resumed.stderr
    again = load_plain(ckpt=tmp_path / "second.pt").state_dict()
    torch.testing.assert_close(again, adapted, atol=1e-7, rtol=1e-6)
    assert finetune(*short, "--out", str(second / "base.safetensors")).returncode == 2


def test_a_tilde_is_the_home_directory(args, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "person").mkdir()
    args = args[: args.index("--run-dir")]
    done = finetune(*args, "--max-steps", "1", "--run-dir=~/run", "--out=~/out.pt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "person" / "run" / "summary.json").is_file() and (tmp_path / "person" / "out.pt").is_file()
    assert finetune("--resume", "~/run").returncode == 0
    assert not (tmp_path / "~").exists()


def test_what_cannot_be_written_is_known_before_the_training(args, tmp_path):
    for option, place, code in (
        ("--out", "/proc/out.pt", 6),
        ("--run-dir", "/proc/run", 6),
        ("--out", str(tmp_path / ("x" * 253)) + ".pt", 2),
        ("--run-dir", str(tmp_path / ("x" * 256)), 2),
    ):
        refused = finetune(*args, option, place)
        assert refused.returncode == code, refused.stderr
        assert refused.stderr.startswith("error: ") and "training" not in refused.stderr
        assert not (tmp_path / "run").exists()
    assert finetune(*args, "--max-steps", "1", "--keep-states").returncode == 0
    refused = finetune("--resume", str(tmp_path / "run"), "--out", "/proc/out.pt")
    assert (refused.returncode, "cannot write /proc/out.pt" in refused.stderr) == (6, True)


def test_a_file_that_another_run_wrote_is_replaced_only_with_force(args, tmp_path):
    short = [*args, "--max-steps", "1"]
    assert finetune(*short).returncode == 0
    before = stamps(tmp_path)
    second = [*short, "--run-dir", str(tmp_path / "second")]
    refused = finetune(*second, "--data", str(tmp_path / "missing.json"))  # before the data is looked for
    assert refused.returncode == 2
    assert "out.pt is there already: use --force to replace it, or choose another --out" in refused.stderr
    assert stamps(tmp_path) == before
    done = finetune(*second, "--force")
    assert done.returncode == 0, done.stderr
    assert torch.load(tmp_path / "out.pt", weights_only=True)["provenance"]["run"] == str(tmp_path / "second")


def test_a_data_directory_that_cannot_be_made_names_its_variable(args, monkeypatch):
    monkeypatch.setenv("GPT2CLI_HOME", "/proc/nowhere")
    refused = finetune(*args[: args.index("--run-dir")], *args[args.index("--out") :])
    assert refused.returncode == 6
    assert "cannot write /proc/nowhere/runs/" in refused.stderr
    assert "set GPT2CLI_HOME to another place" in refused.stderr and "training" not in refused.stderr


def test_a_model_of_another_vocabulary_leaves_no_run(args, tmp_path):
    small = models.small_model(replace(SHAPE, vocab_size=300))
    directory = models.save_hub_directory(small, tmp_path / "small")
    refused = finetune(*args, "--model", str(directory))
    assert refused.returncode == 4, refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["stderr", "stdout"])
def test_a_run_goes_on_when_nobody_reads_what_it_says(args, home, tmp_path, extra):
    reader, writer = os.pipe()
    os.close(reader)
    with process_left_alone(), os.fdopen(writer, "wb", buffering=0) as unread:
        stdout = io.TextIOWrapper(unread, write_through=True) if extra else Pipe()
        stderr = Pipe() if extra else NotesStream(unread, write_through=True)
        code = main(["finetune", *args, "--max-steps", "3", *extra], Environment(Pipe(), stdout, stderr, os.environ))
    assert code == (141 if extra else 0)
    assert torch.load(tmp_path / "out.pt", weights_only=True)["provenance"]["step"] == 3
    assert len(metrics(tmp_path / "run")) == 5


@pytest.mark.parametrize("option", ["--data", "--out", "--run-dir", "--model", "--ckpt", "--wandb-project", "--resume"])
def test_an_empty_text_is_no_value(home, option):
    refused = finetune(option, "")
    assert (refused.returncode, "is empty" in refused.stderr) == (2, True)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"train": 1}', "null", ""])
def test_a_damaged_config_is_4(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    refused = finetune("--resume", str(tmp_path))
    assert refused.returncode == 4
    assert "config.json" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_run_whose_data_is_gone_is_4(args, tmp_path):
    assert finetune(*args, "--max-steps", "1", "--keep-states").returncode == 0
    for name in ("records.json", "out.pt"):
        (tmp_path / name).unlink()
    refused = finetune("--resume", str(tmp_path / "run"))
    assert refused.returncode == 4
    assert f"cannot resume {tmp_path / 'run'}: {tmp_path / 'records.json'} is not there" in refused.stderr


def test_a_run_that_could_not_begin_is_none_to_resume(args, tmp_path, home):
    missing = finetune("--model", "tiny", "--data", str(tmp_path / "missing.json"))
    assert missing.returncode == 2
    resumed = finetune("--resume")
    assert resumed.returncode == 2
    assert "there is no run to resume" in resumed.stderr


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--lora-rank", "4"], "add --lora"),
        (["--n-layer", "2"], "add --from-scratch"),
        (["--from-scratch", "--model", "tiny"], "leave one out"),
        (["--precision", "fp16"], "fp16"),
        (["--lr", "-1"], "--lr must be"),
        (["--loss-on", "all"], "prepare-alpaca"),
        (["--columns", "output=answer"], "prepare-alpaca"),
        (["--columns", "answer"], "write FIELD=COLUMN"),
    ],
    ids=str,
)
def test_options_that_would_do_nothing_are_refused(home, option, says):
    done = finetune(*option)
    assert done.returncode == 2
    assert says in done.stderr


def test_data_on_the_hub_is_trained_on_resumed_and_known_to_an_evaluation(args, tmp_path, hub):
    hub.repo, hub.files = "owner/colours", {"data/train.json": (tmp_path / "records.json").read_bytes()}
    name, run = "hf:owner/colours/data/train.json", tmp_path / "run"
    args = [name if each == str(tmp_path / "records.json") else each for each in args]
    planned = finetune(*args, "--dry-run", "--json")  # the data are downloaded, as the plan depends on them
    assert planned.returncode == 0 and json.loads(planned.stdout)["examples"] == 42
    whole = finetune(*args, "--offline", "--run-dir", str(tmp_path / "whole"), "--out", str(tmp_path / "whole.pt"))
    assert whole.returncode == 0, whole.stderr
    with signal_when(lambda: has_saved(run, 3), signal.SIGINT):
        assert finetune(*args, "--keep-states").returncode == 130
    assert json.loads((run / "config.json").read_text())["data"] == name
    requests = len(hub.log)
    done = finetune("--resume", str(run))
    assert done.returncode == 0, done.stderr
    assert len(hub.log) == requests and "downloaded before" in done.stderr
    assert learned(run) == learned(tmp_path / "whole")
    assert torch.load(tmp_path / "out.pt", weights_only=True)["provenance"]["data"]["source"] == name
    known = run_here("evaluate", "--data", name, "--ckpt", str(tmp_path / "out.pt"), "--answers", "0")
    assert known.returncode == 0 and f"{tmp_path / 'out.pt'} was trained on this data" in known.stderr, known.stderr
    held_out = run_here("evaluate", "--data", name, "--ckpt", str(tmp_path / "out.pt"), "--split", "val", "--json")
    assert json.loads(held_out.stdout)["records"] == 6 and "was trained on" not in held_out.stderr
