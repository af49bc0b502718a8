"""A cache of one shape gives what the growing one gives; and on CUDA so do the graphs."""

import copy

import pytest
import torch

from gpt2cli.config import SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.generation.decode import generate
from gpt2cli.model.graphs import compile_steps
from tests import models

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]


def texts(model, prompts, tokens):
    """Greedy tokens of each prompt, all in one batch."""
    found = [[] for _ in prompts]
    for row, token in generate(model, prompts, SamplingConfig(max_new_tokens=tokens, temperature=0), range(9)):
        found[row].append(token)
    return found


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]], ids=["batch", "alone"])
@pytest.mark.parametrize("tokens", [12, 60])  # the latter goes beyond the window
def test_a_cache_of_one_shape_gives_the_same_text(prompts, tokens):
    plain = models.small_model()
    static = copy.deepcopy(plain)
    compile_steps(static, backend="eager")
    assert texts(static, prompts, tokens) == texts(plain, prompts, tokens)


def test_the_step_is_compiled_once_for_a_batch():
    model = models.small_model()
    graphs = []
    compile_steps(model, backend=lambda graph, inputs: graphs.append(graph) or graph)
    texts(model, PROMPTS, 20)
    assert len(graphs) == 1


def test_it_is_refused_without_cuda():
    with pytest.raises(UsageError, match="--compile is for CUDA"):
        compile_steps(models.small_model())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_graphs_give_the_same_text():
    plain = models.small_model().cuda()
    graphed = copy.deepcopy(plain)
    compile_steps(graphed)
    assert texts(graphed, PROMPTS, 60) == texts(plain, PROMPTS, 60)
