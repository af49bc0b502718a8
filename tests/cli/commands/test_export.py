"""`gpt2 export`: the whole way from a LoRA run to PEFT and back, and what scripts see when it fails."""

import json

import pytest

from tests.runner import little_room
from tests.training.records import write_records


def test_from_a_lora_run_to_every_place_and_back(run, tmp_path):
    data, tuned = tmp_path / "data.json", str(tmp_path / "tuned.pt")
    write_records(data, 20)
    train = ("--model", "tiny", "--data", str(data), "--lora", "--max-steps", "2", "--lr", "0.01")
    train += ("--sample-every", "0")
    done = run("finetune", *train, "--out", tuned, "--run-dir", str(tmp_path / "run"), "--quiet")
    assert done.returncode == 0, done.stderr
    asked = ("--prompt", "What is a cat?", "--temp", "0", "-n", "12", "--quiet")
    done = run("export", "--ckpt", tuned, "--format", "peft", "--out", str(tmp_path / "adapter"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "wrote" in done.stderr
    assert "(3 files, " in done.stderr
    answer = run("chat", "--ckpt", str(tmp_path / "adapter"), *asked).stdout
    assert answer
    done = run("export", "--ckpt", tuned, "--format", "hf", "--out", str(tmp_path / "hf"), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    chat = run("chat", "--model", str(tmp_path / "hf"), "--prompt", "What is a cat?", "--temp", "0", "-n", "12")
    assert chat.stdout == answer
    assert "tuned on instructions" not in chat.stderr
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "fine-tuned from tiny" in card
    assert str(tmp_path) not in card
    assert "| val | " in card
    assert "response" in json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())["chat_template"].lower()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((), 2, "Missing option '--format'"),
        (("--format", "hf", "--out", "x"), 2, "say what to export: --ckpt FILE, or --model NAME"),
        (("--format", "peft", "--out", "x", "--ckpt", "missing.pt"), 4, "is not there"),
        (("--format", "hf", "--out", "x", "--model", "tiny", "--private"), 2, "--private needs --push OWNER/NAME"),
        (("--format", "hf", "--out", "x", "--model", "tiny", "--push", "a/b", "--offline"), 2, "--offline forbids"),
    ],
)
def test_errors_are_one_line(run, args, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without a file x
    done = run("export", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_a_full_disk(run, tmp_path, format):
    out = tmp_path / ("out" if format == "hf" else "out.gguf")
    with little_room(3_000_000):
        done = run("export", "--model", "tiny", "--format", format, "--out", str(out))
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith(f"error: cannot write {out} (")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
