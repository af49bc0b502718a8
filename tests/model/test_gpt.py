"""The model against transformers' GPT2LMHeadModel, and against itself with and without the cache."""

import re

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2cli.checkpoints.build import build
from gpt2cli.checkpoints.dialects import to_ours
from gpt2cli.checkpoints.lazy_arrays import lazy
from gpt2cli.checkpoints.model_shape import read_shape
from gpt2cli.checkpoints.stored_model import StoredModel, Weights
from gpt2cli.checkpoints.torch_arrays import to_array
from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.generation.prefill import prefill
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.model.cache import KVCache
from gpt2cli.model.gpt import GPT
from gpt2cli.model.origin import Origin
from gpt2cli.published import PUBLISHED

# n_layer, n_head, n_embd, block_size, vocab_size
SHAPES = [
    (2, 4, 64, 128, 512),
    (3, 3, 48, 37, 257),  # odd: three heads of 16, a block that is no power of two
    (1, 1, 8, 16, 50),
    (4, 5, 40, 100, 1000),
    (2, 2, 128, 1024, 50257),
    (6, 12, 192, 64, 300),
]


def peer_and_ours(shape: tuple[int, ...]) -> tuple[GPT2LMHeadModel, GPT]:
    """transformers' model with random weights, spread so that errors show, and ours with the same."""
    n_layer, n_head, n_embd, block_size, vocab_size = shape
    torch.manual_seed(sum(shape))
    config = GPT2Config(
        n_layer=n_layer, n_head=n_head, n_embd=n_embd, n_positions=block_size, vocab_size=vocab_size,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    peer = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.mul_(3.0).add_(torch.randn_like(parameter) * 0.02)
    state = {name: tensor for name, tensor in peer.state_dict().items() if name != "lm_head.weight"}
    arrays = to_ours({name: lazy(to_array(tensor)) for name, tensor in state.items()})
    shape = read_shape(arrays, {"n_head": n_head}, "peer")
    return peer, build(StoredModel(shape, Weights(arrays, "peer"), Origin())).eval()


def greedy(model: GPT, prompts: list[list[int]], n: int) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in prompts]
    for row, token in generate_tokens(
        model, prompts, SamplingConfig(max_new_tokens=n, temperature=0), [0] * len(prompts)
    ):
        out[row].append(token)
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_logits_equal_transformers(shape):
    peer, ours = peer_and_ours(shape)
    idx = torch.randint(shape[4], (4, min(shape[3], 60)))
    torch.testing.assert_close(ours(idx), peer(idx).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_greedy_ids_equal_transformers(shape):
    peer, ours = peer_and_ours(shape)
    n = min(64, shape[3] - 9)
    prompt = torch.randint(1, shape[4], (1, 9))
    theirs = peer.generate(prompt, max_new_tokens=n, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert greedy(ours, prompt.tolist(), n) == [theirs[0, 9:].tolist()]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_cached_equals_uncached_for_prompts_of_different_lengths(shape):
    _, ours = peer_and_ours(shape)
    longest = min(shape[3] - 6, 50)
    prompts = [torch.randint(shape[4], (n,)).tolist() for n in (longest, 1, longest // 2, 3)]
    logits, cache = prefill(TorchDecoder(ours), prompts, longest + 6)
    for step in range(6):
        for row, prompt in enumerate(prompts):
            alone = ours(torch.tensor([prompt]))[0, -1]
            torch.testing.assert_close(logits[row], alone, atol=1e-4, rtol=0, msg=f"row {row}, step {step}")
        for prompt, token in zip(prompts, logits.argmax(-1).tolist(), strict=True):
            prompt.append(token)
        if step < 5:
            logits = ours(torch.tensor([[prompt[-1]] for prompt in prompts]), cache)[:, -1]


@torch.no_grad()
def test_several_tokens_on_top_of_a_cache_equal_one_pass():
    _, ours = peer_and_ours(SHAPES[1])
    idx = torch.randint(257, (2, 30))
    cache = KVCache(ours.config, 2, 30)
    pieces = [ours(idx[:, a:b], cache) for a, b in ((0, 7), (7, 8), (8, 21), (21, 30))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), ours(idx), atol=1e-4, rtol=0)


@torch.no_grad()
def test_what_lies_beyond_a_rows_length_does_not_matter():
    _, ours = peer_and_ours(SHAPES[0])
    prompts = [[1, 2, 3, 4, 5], [6, 7]]
    _, clean = prefill(TorchDecoder(ours), prompts, 8)
    _, dirty = prefill(TorchDecoder(ours), prompts, 8)
    for store in dirty.k + dirty.v:
        store[1, :, 2:] = 1e4
    idx = torch.tensor([[8], [9]])
    torch.testing.assert_close(ours(idx, clean), ours(idx, dirty), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("distilgpt2", 81_912_576),
    ],
)
def test_published_sizes(name, parameters):
    with torch.device("meta"):
        model = GPT(PUBLISHED[name].config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_more_tokens_than_the_window_are_refused():
    model = GPT(GPTConfig(1, 1, 8, block_size=4, vocab_size=10))
    with pytest.raises(UsageError, match="5 tokens do not fit into the model's window of 4"):
        model(torch.zeros(1, 5, dtype=torch.long))


def test_dropout_is_random_while_training_and_absent_otherwise():
    torch.manual_seed(0)
    model = GPT(GPTConfig(2, 2, 16, block_size=8, vocab_size=20, dropout=0.5))
    idx = torch.arange(8)[None]
    assert not torch.equal(model.train()(idx), model(idx))
    assert torch.equal(model.eval()(idx), model(idx))


def test_initial_weights_have_gpt2s_scales():
    torch.manual_seed(0)
    model = GPT(GPTConfig(8, 4, 128, block_size=512, vocab_size=2000))
    residual = 0.02 / 4  # 1/sqrt(2 * 8 layers)
    expected = {
        "wte": 0.02,
        "wpe": 0.01,
        "h.3.attn.c_attn": 0.02,
        "h.3.attn.c_proj": residual,
        "h.3.mlp.c_proj": residual,
    }
    for name, std in expected.items():
        assert model.get_parameter(f"{name}.weight").std().item() == pytest.approx(std, rel=0.03), name
    assert model.get_parameter("h.0.mlp.c_fc.bias").abs().max() == 0
    assert model.get_parameter("ln_f.weight").min() == 1


@pytest.mark.parametrize("shape", [(5,), (), (1, 2, 3), (1, 0), (0, 3)])
def test_ids_that_are_not_in_rows_are_refused(shape):
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=50))
    for called in (model, TorchDecoder(model)):
        with pytest.raises(UsageError, match=re.escape(f"must have the shape (B, T), not {shape}")):
            called(torch.zeros(shape, dtype=torch.long))
