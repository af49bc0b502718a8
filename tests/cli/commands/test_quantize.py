"""`gpt2 quantize`: what it writes is a checkpoint for every command, or there is nothing."""

from dataclasses import replace

import pytest

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.prompts import ALPACA
from tests import models
from tests.runner import little_room
from tests.training.records import write_records


@pytest.fixture
def ckpt(tmp_path):
    path = tmp_path / "tuned.pt"
    save_checkpoint(
        models.small_model(replace(models.SMALL, block_size=128)),
        path,
        template=ALPACA.to_dict(),
        provenance={"settings": {"lr": 1}},
    )
    return path


@pytest.mark.parametrize("bits", ["8", "4"])
def test_every_command_opens_it(run, ckpt, tmp_path, bits):
    small = tmp_path / "small.safetensors"
    done = run("quantize", "--ckpt", str(ckpt), "--bits", bits, "--out", str(small))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"in {bits} bits" in done.stderr
    assert ("compare both with `gpt2 evaluate`" in done.stderr) == (bits == "4")
    assert done.stderr.count("\n") == 1
    assert small.stat().st_size < ckpt.stat().st_size * 0.3
    assert read_metadata(small) == read_metadata(ckpt)
    assert load_plain(ckpt=small).origin.precision == f"int{bits}"
    short = ("--ckpt", str(small), "-n", "4", "--temp", "0", "--quiet")
    assert run("generate", "One", *short).stdout
    done = run("chat", *short, "--prompt", "What?")
    assert (done.returncode, done.stderr) == (0, "")
    write_records(tmp_path / "data.json", 8)
    data = ("--data", str(tmp_path / "data.json"), "--quiet")
    train = ("--max-steps", "1", "--max-length", "120", "--sample-every", "0", "--run-dir", str(tmp_path / "run"))
    done = run("finetune", "--ckpt", str(small), *data, *train, "--out", str(tmp_path / "further.pt"))
    assert done.returncode == 0, done.stderr
    done = run("export", "--ckpt", str(small), "--format", "hf", "--out", str(tmp_path / "hf"), "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    ours, back = load_plain(ckpt=small).state_dict(), load_plain(str(tmp_path / "hf")).state_dict()
    assert all((back[name] == tensor).all() for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--bits", "8", "--out", "x.safetensors"), "say what to quantize"),
        (("--bits", "5", "--out", "x.safetensors", "--model", "tiny"), "--bits must be 8 or 4"),
        (("--bits", "8", "--out", "x.pt", "--model", "tiny"), "let it end in .safetensors"),
        (
            ("--bits", "8", "--out", "x.safetensors", "--model", "tiny"),
            "tiny is in 4 bits already: quantize the model",
        ),
    ],
)
def test_errors_are_one_line(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    done = run("quantize", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not list(tmp_path.glob("*x.*"))


def test_nothing_is_quantized_twice_or_over_itself_or_over_others(run, ckpt, tmp_path):
    small, link = tmp_path / "small.safetensors", tmp_path / "link.safetensors"
    assert run("quantize", "--ckpt", str(ckpt), "--bits", "4", "--out", str(small)).returncode == 0
    before = small.read_bytes()
    done = run("quantize", "--ckpt", str(small), "--bits", "8", "--out", str(tmp_path / "other.safetensors"))
    assert (done.returncode, "is in 4 bits already" in done.stderr) == (2, True)
    done = run("quantize", "--ckpt", str(ckpt), "--bits", "4", "--out", str(small))
    assert (done.returncode, "use --force" in done.stderr) == (2, True)
    link.symlink_to(small)
    for out in (small, link, tmp_path / "." / ".." / tmp_path.name / small.name):
        done = run("quantize", "--ckpt", str(small), "--bits", "4", "--out", str(out), "--force")
        assert (done.returncode, "is the model to quantize" in done.stderr) == (2, True)
    assert small.read_bytes() == before
    assert run("quantize", "--ckpt", str(ckpt), "--bits", "8", "--out", str(small), "--force").returncode == 0
    assert small.read_bytes() != before


def test_a_new_file_may_be_in_the_directory_of_the_model(run, tmp_path):
    directory = models.save_hub_directory(models.small_model(), tmp_path)
    done = run("quantize", "--model", str(directory), "--bits", "8", "--out", str(directory / "s.safetensors"))
    assert done.returncode == 0, done.stderr
    own = str(directory / "model.safetensors")
    done = run("quantize", "--model", str(directory), "--bits", "8", "--out", own, "--force")
    assert (done.returncode, "is the model to quantize" in done.stderr) == (2, True)


def test_a_full_disk(run, ckpt, tmp_path):
    out = tmp_path / "out" / "small.safetensors"
    out.parent.mkdir()
    with little_room(500_000):
        done = run("quantize", "--ckpt", str(ckpt), "--bits", "8", "--out", str(out))
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith(f"error: cannot write {out} (")
    assert list(out.parent.iterdir()) == []
