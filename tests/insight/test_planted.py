"""A circuit that was set by hand is found: its heads are named, and without them the behaviour is gone."""

import json
from functools import cache

import pytest
import torch

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.attention import attention, repeated_sequence
from gpt2cli.insight.passes import Site, logits, trace
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from tests import models, planted

model = cache(planted.planted_model)


def accuracy(edits):
    """The fraction of the second half's tokens, from its second on, that the model predicts."""
    idx = torch.tensor([repeated_sequence(model(), 3)])
    with torch.no_grad():
        predicted = logits(model(), trace(model(), idx, edits).final).argmax(dim=-1)
    return float((predicted[0, 51:-1] == idx[0, 52:]).float().mean())


def without(layer, head):
    def edit(mixes):
        changed = mixes.clone()
        changed[:, head] = 0
        return changed

    return {(layer, Site.HEADS): edit}


@pytest.mark.parametrize("seed", range(3))
def test_the_two_heads_are_named_and_no_other(seed):
    [found] = attention(Subject(model(), Question((50256,))), ExplainConfig(seed=seed))
    labels = {(row.layer, row.head): row.label for row in found.rows if row.label}
    assert labels == {planted.PREVIOUS_TOKEN_HEAD: "previous", planted.INDUCTION_HEAD: "induction"}
    assert found.rows[1].repeated.previous > 0.99
    assert found.rows[5].repeated.induction > 0.99


def test_the_model_continues_what_repeats_itself_and_not_without_either_head():
    assert accuracy({}) == 1
    assert accuracy(without(0, 0)) == accuracy(without(1, 0)) == 1
    assert accuracy(without(*planted.PREVIOUS_TOKEN_HEAD)) < 0.1
    assert accuracy(without(*planted.INDUCTION_HEAD)) < 0.1


@pytest.fixture
def directory(tmp_path):
    return str(models.save_hub_directory(model(), tmp_path / "planted"))


def test_the_command_names_the_heads(run, directory):
    done = run("explain", "x", "--model", directory, "--parts", "attention", "--json")
    heads = json.loads(done.stdout)["heads"]
    labels = {(head["layer"], head["head"]): head["label"] for head in heads if head["label"]}
    assert labels == {planted.PREVIOUS_TOKEN_HEAD: "previous", planted.INDUCTION_HEAD: "induction"}


@pytest.mark.parametrize("removed", [None, "0.0,1.0", "0.1", "1.2"])
def test_generate_continues_the_repetition_unless_a_head_of_the_circuit_is_removed(run, directory, removed):
    ablate = ["--ablate", removed] if removed else []
    text = " a b c d e f g h a b c"
    done = run("generate", text, "--model", directory, "--temp", "0", "-n", "5", *ablate)
    assert (text + " d e f g h" in done.stdout) == (removed in (None, "0.0,1.0"))
