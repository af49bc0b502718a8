"""Drafts come from the text, and are as long as pays; with them the tokens are those without, in fewer steps."""

from dataclasses import replace

import pytest

from gpt2cli import encode
from gpt2cli.checkpoints.load import load, load_plain
from gpt2cli.config import SamplingConfig
from gpt2cli.generation import decode
from gpt2cli.generation.prompt_lookup import LONGEST, PromptLookup
from gpt2cli.model.gpt import GPT
from tests import models


def test_a_draft_is_what_followed_the_last_time():
    text = [1, 2, 3, 4, 5, 1, 2, 3, 6, 7, 1, 2, 3]
    assert PromptLookup().draft(text, room=2) == [6, 7]
    assert PromptLookup().draft(text, room=0) == []
    assert PromptLookup().draft(text[:-1], room=9) == []


def test_a_text_may_be_told_token_by_token():
    text, lookup = [1, 2, 3, 4, 5, 1, 2, 3, 4, 1, 2, 3, 4], PromptLookup()
    for length in range(1, len(text)):
        lookup.draft(text[:length], room=4)
    assert lookup.draft(text, room=4) == PromptLookup().draft(text, room=4)


def test_drafts_grow_with_success_end_with_failure_and_are_tried_again():
    text, lookup = [1, 2, 3] * 20, PromptLookup()
    for _ in range(40):
        lookup.learn(5, 5)
    assert len(lookup.draft(text, room=100)) == LONGEST
    for _ in range(40):
        lookup.learn(0, 5)
    assert lookup.draft(text, room=100) == []
    assert any(lookup.draft(text, room=100) for _ in range(20))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(max_new_tokens=150, temperature=0),
        SamplingConfig(max_new_tokens=150, temperature=0.7, top_k=40),
        SamplingConfig(max_new_tokens=60, temperature=1.0, top_k=0, top_p=0.9, repetition_penalty=1.1),
    ],
    ids=["greedy", "sampled", "penalised"],
)
def test_speculation_changes_no_token_and_saves_steps(sampling, precision, monkeypatch):
    model = models.tiny(precision)
    steps = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda *args: steps.append(args[0].shape[1]) or hidden(*args))
    prompt = encode("The king said to the queen, and the queen said to the king, and the king said")

    def run(speculate):
        steps.clear()
        return [token for _, token in decode.generate_tokens(model, [prompt], sampling, [3], speculate=speculate)], len(
            steps
        )

    (plain, plain_steps), (drafted, drafted_steps) = run(False), run(True)
    assert drafted == plain
    assert drafted_steps <= plain_steps
    if sampling.temperature == 0:  # the likeliest text goes round
        assert drafted_steps < 0.7 * plain_steps


def test_the_window_slides_as_it_does_without(tmp_path):
    tiny = load_plain("tiny", device="cpu")
    short = GPT(replace(tiny.config, block_size=64))
    short.load_state_dict(tiny.state_dict() | {"wpe.weight": tiny.wpe.weight[:64]})
    model = load(str(models.save_hub_directory(short, tmp_path)), device="cpu", precision="fp32")
    sampling = SamplingConfig(max_new_tokens=2 * model.config.block_size, temperature=0)
    plain, drafted = (
        [token for _, token in decode.generate_tokens(model, [[11, 12]], sampling, [0], speculate=speculate)]
        for speculate in (False, True)
    )
    assert drafted == plain


def test_an_end_in_the_middle_of_a_draft_is_the_end():
    model = models.tiny("fp32")
    prompt = encode("a b c a b c a b c a b c")
    taken = []

    def is_finished(row):
        return len(taken) == 7

    sampling = SamplingConfig(max_new_tokens=50, temperature=0)
    for _, token in decode.generate_tokens(model, [prompt], sampling, [0], is_finished):
        taken.append(token)
    assert len(taken) == 7
