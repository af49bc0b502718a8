"""The model in the box has learned something, and works without a network."""

import pytest
import torch
from torch.nn import functional as F

from gpt2cli import SamplingConfig, encode, generate, load

TALE = (
    "Once upon a time there was a king who had three sons, and he loved them all so much that he did not know which of"
    " them he should make king after him. When the time came for him to die, he called them to his bed and spoke to"
    " them."
)


@pytest.fixture(scope="module")
def tiny():
    return load("tiny", device="cpu", offline=True)


def test_it_is_a_gpt2_with_gpt2s_vocabulary(tiny):
    assert (tiny.config.n_layer, tiny.config.n_embd, tiny.config.vocab_size) == (4, 128, 50257)


def test_it_knows_how_tales_go(tiny):
    ids = torch.tensor([encode(TALE)])
    with torch.no_grad():
        loss = F.cross_entropy(tiny(ids)[0, :-1], ids[0, 1:])
        scrambled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
        nonsense = F.cross_entropy(tiny(scrambled)[0, :-1], scrambled[0, 1:])
    assert loss < 4.2 < 6 < nonsense


def test_its_greedy_text_is_the_same_everywhere(tiny):
    text = generate(tiny, "Once upon a time there was a", SamplingConfig(max_new_tokens=12, temperature=0))
    assert text == generate(tiny, "Once upon a time there was a", SamplingConfig(max_new_tokens=12, top_k=1))
    assert all(word.isascii() for word in text.split())
    assert len(text.split()) >= 8


def test_generate_tells_a_tale_offline(run, home):
    done = run("generate", "Once upon a time", "--model", "tiny", "--offline", "-n", "20", "--seed", "1")
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.split()) > 12
