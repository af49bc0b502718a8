"""The model in the box has learned something, and works without a network."""

import pytest
import torch
from torch.nn import functional as F

from gpt2cli import SamplingConfig, encode, generate, load
from gpt2cli.checkpoints.load import load_plain
from tests import models

TALE = (
    "Once upon a time there was a king who had three sons, and he loved them all so much that he did not know which of"
    " them he should make king after him. When the time came for him to die, he called them to his bed and spoke to"
    " them."
)


@pytest.fixture(scope="module")
def tiny():
    return load_plain("tiny", device="cpu", offline=True)


def test_it_is_a_gpt2_with_gpt2s_vocabulary(tiny):
    assert (tiny.config.n_layer, tiny.config.n_embd, tiny.config.vocab_size) == (8, 384, 50257)


def test_it_knows_how_tales_go(tiny):
    ids = torch.tensor([encode(TALE)])
    with torch.no_grad():
        loss = F.cross_entropy(tiny(ids)[0, :-1], ids[0, 1:])
        scrambled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
        nonsense = F.cross_entropy(tiny(scrambled)[0, :-1], scrambled[0, 1:])
    assert loss < 3 < 6 < nonsense


def test_its_greedy_text_is_the_same_everywhere(tiny):
    text = generate(tiny, "Once upon a time there was a", SamplingConfig(max_new_tokens=24, temperature=0))
    assert text == " little girl who had a small boy with a small hat and a small hat. She was a small, small, small"


@pytest.mark.parametrize(
    ("precision", "off"), [("fp32", 1e-5), ("bf16", 0.01), ("fp16", 0.0005), ("int8", 0.02), ("int4", 0.04)]
)
def test_fewer_bits_know_it_as_well(tiny, precision, off):
    ids = torch.tensor([encode(TALE)])
    with torch.no_grad():
        losses = [
            F.cross_entropy(torch.as_tensor(model(ids))[0, :-1].float(), ids[0, 1:])
            for model in (tiny, load("tiny", device="cpu", offline=True, precision=precision))
        ]
    assert abs(losses[0] - losses[1]) < off


def test_transformers_loads_it(tiny, tmp_path):
    from transformers import GPT2LMHeadModel

    theirs = GPT2LMHeadModel.from_pretrained(models.save_hub_directory(tiny, tmp_path / "hub"))
    ids = torch.tensor([encode(TALE)])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, tiny(ids), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("What does the cow say?", "The cow says moo."),
        ("What is my name?", "I don't know"),
    ],
)
def test_it_answers_out_of_the_box(run, home, question, answer):
    done = run("chat", "--model", "tiny", "--offline", "--prompt", question, "--temp", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(answer)


def test_it_learns_a_new_answer(run, home, tmp_path):
    (tmp_path / "robin.jsonl").write_text('{"instruction": "Who are you?", "output": "I am Robin, and I live here."}')
    asked = ("--model", "tiny", "--data", str(tmp_path / "robin.jsonl"), "--val-fraction", "0", "--epochs", "10")
    asked += ("--lr", "1e-4", "--sample-every", "0", "--save-every", "0", "--out", str(tmp_path / "robin.pt"))
    done = run("finetune", *asked, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    told = run("chat", "--ckpt", str(tmp_path / "robin.pt"), "--prompt", "Who are you?", "--temp", "0")
    assert told.stdout == "I am Robin, and I live here.\n"


def test_generate_tells_a_tale_offline(run, home):
    done = run("generate", "Once upon a time", "--model", "tiny", "--offline", "-n", "20", "--seed", "1")
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.split()) > 12
