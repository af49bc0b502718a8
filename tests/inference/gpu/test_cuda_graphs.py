"""Decoding in bursts gives what decoding step by step gives: here without graphs, on CUDA with them."""

import copy

import pytest
import torch

from gpt2cli import bench
from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.errors import DivergedError, UsageError
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.inference.gpu.cuda_graphs import BURST, GraphSession
from gpt2cli.inference.gpu.graph_decoder import GraphDecoder, can_fuse
from gpt2cli.inference.torch_decoder import TorchDecoder
from tests import models

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48, block_size=37, vocab_size=300)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [1, 2, 3]]
GREEDY = SamplingConfig(max_new_tokens=60, temperature=0)  # beyond the window


def texts(model, prompts, sampling, **options):
    """The tokens of each prompt, all in one batch."""
    found = [[] for _ in prompts]
    for row, token in generate_tokens(model, prompts, sampling, range(7, 7 + len(prompts)), **options):
        found[row].append(token)
    return found


@pytest.fixture(scope="module")
def plain():
    return models.small_model(CONFIG)


@pytest.fixture
def graphed(plain):
    return GraphDecoder(copy.deepcopy(plain), fused=False)


@pytest.mark.parametrize("rows", [1, 2, 4, 12])
@pytest.mark.parametrize("tokens", [1, 2, BURST + 1, 60])
def test_greedy_texts_are_the_same(plain, graphed, rows, tokens):
    sampling = SamplingConfig(max_new_tokens=tokens, temperature=0)
    prompts = (PROMPTS * 3)[:rows]
    assert texts(graphed, prompts, sampling) == texts(plain, prompts, sampling)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 0},
        {"top_k": 7, "top_p": 0.8},
        {"min_p": 0.2, "temperature": 3.0},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 1.3, "temperature": 0},
    ],
    ids=str,
)
def test_the_same_seeds_give_the_same_texts(plain, graphed, options):
    sampling = SamplingConfig(**{"max_new_tokens": 50, "temperature": 1.2, **options})
    assert texts(graphed, PROMPTS, sampling) == texts(plain, PROMPTS, sampling)


def test_rows_end_one_by_one(plain, graphed):
    full = texts(plain, PROMPTS, GREEDY)
    ends = {0: 3, 1: 20, 2: 45}
    seen = [0] * len(PROMPTS)

    def is_finished(row):
        seen[row] += 1
        return seen[row] >= ends.get(row, 99)

    assert texts(graphed, PROMPTS, GREEDY, is_finished=is_finished) == [
        tokens[: ends.get(row, 60)] for row, tokens in enumerate(full)
    ]


def test_a_row_ends_with_its_end(plain, graphed):
    [full] = texts(plain, PROMPTS[:1], GREEDY)
    end = full[25]
    assert texts(graphed, PROMPTS[:1], GREEDY, end=end) == [full[: full.index(end) + 1]]


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_windows_work(block_size):
    model = models.small_model(GPTConfig(1, 1, 8, block_size=block_size, vocab_size=50))
    expected = texts(model, [[3], [4]], GREEDY)
    assert texts(GraphDecoder(model, fused=False), [[3], [4]], GREEDY) == expected


@pytest.fixture
def made(monkeypatch):
    """The arguments of each session that is made."""
    made = []
    start = GraphSession.__init__
    monkeypatch.setattr(GraphSession, "__init__", lambda self, *args: made.append(args) or start(self, *args))
    return made


@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize("prompts", [[[1, 2, 3]], PROMPTS], ids=["equal", "different"])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.2}, {"repetition_penalty": 1.3}], ids=str)
def test_one_session_serves_rows_that_end_one_by_one(plain, graphed, made, rows, prompts, options):
    prompts, sampling = (prompts * 12)[:rows], SamplingConfig(max_new_tokens=60, **options)
    full = texts(plain, prompts, sampling)
    ends = [3 + 5 * row for row in range(rows)]
    seen = [0] * rows

    def is_finished(row):
        seen[row] += 1
        return seen[row] >= ends[row]

    expected = [tokens[:end] for tokens, end in zip(full, ends, strict=True)]
    assert texts(graphed, prompts, sampling, is_finished=is_finished) == expected
    assert len(made) == 1
    assert made[0][1] == rows


def test_one_session_serves_all_texts_of_a_shape(graphed, made):
    for tokens in (20, 60, 10):
        texts(graphed, PROMPTS, SamplingConfig(max_new_tokens=tokens, temperature=0))
    assert len(made) == 1
    texts(graphed, PROMPTS[:2], GREEDY)
    assert len(made) == 2


def test_two_texts_at_a_time_do_not_disturb_each_other(plain, graphed):
    expected = texts(plain, PROMPTS[:2], GREEDY, speculate=False)
    both = [generate_tokens(graphed, [prompt], GREEDY, [0]) for prompt in PROMPTS[:2]]
    pairs = [(a[1], b[1]) for a, b in zip(*both, strict=True)]
    assert [list(tokens) for tokens in zip(*pairs, strict=True)] == expected


def test_a_text_that_is_left_does_not_disturb_the_next(plain, graphed):
    left = generate_tokens(graphed, PROMPTS, GREEDY, range(4))
    for _ in range(30):
        next(left)
    left.close()
    assert texts(graphed, PROMPTS, GREEDY) == texts(plain, PROMPTS, GREEDY)


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_k": 0}, {"repetition_penalty": 1.3}], ids=str)
def test_numbers_that_are_not_finite_are_refused_and_leave_nothing_behind(plain, graphed, options):
    sampling = SamplingConfig(max_new_tokens=30, **options)
    right = graphed.gpt.wpe.weight[9].detach().clone()
    with torch.no_grad():
        graphed.gpt.wpe.weight[9] = torch.nan
    with pytest.raises(DivergedError, match="not finite at token 10"):
        texts(graphed, PROMPTS[:2], sampling)
    with torch.no_grad():
        graphed.gpt.wpe.weight[9] = right
    assert texts(graphed, PROMPTS[:2], sampling) == texts(plain, PROMPTS[:2], sampling)


def test_the_measured_tokens_are_those_of_greedy_decoding(plain, graphed):
    assert bench.run_once(graphed, [3, 1, 4], 20).tokens == bench.run_once(TorchDecoder(plain), [3, 1, 4], 20).tokens


def test_it_is_refused_without_cuda():
    with pytest.raises(UsageError, match="--compile needs a CUDA device, not cpu"):
        GraphDecoder(models.small_model(CONFIG))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"temperature": 1.2}, {"temperature": 1.2, "top_k": 0}], ids=str
)
def test_graphs_give_the_same_texts(plain, fused, rows, options):
    plain = copy.deepcopy(plain).cuda()
    if fused and not can_fuse(plain):
        pytest.skip("this GPU has no Triton")
    graphed = GraphDecoder(copy.deepcopy(plain), fused=fused)
    prompts, sampling = (PROMPTS * 3)[:rows], SamplingConfig(max_new_tokens=60, **options)
    assert texts(graphed, prompts, sampling) == texts(plain, prompts, sampling)
