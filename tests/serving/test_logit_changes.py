"""Penalties and biases against OpenAI's formula, written out token by token."""

import numpy as np
import pytest

from gpt2cli.serving.logit_changes import LogitChanges

LOGITS = np.array([1.0, -2.0, 0.5, 3.0, 0.0], np.float32)


@pytest.mark.parametrize(("frequency", "presence"), [(0.0, 0.0), (0.5, 0.0), (0.0, 1.5), (2.0, -1.0), (-0.3, 0.2)])
@pytest.mark.parametrize("bias", [{}, {3: -1.5}, {0: 100, 4: 2.25}], ids=str)
def test_the_formula(frequency, presence, bias):
    changes = LogitChanges(frequency, presence, bias)
    generated = [3, 1, 3, 3, 0]
    for token in generated:
        changes.count(token)
    expected = []
    for token, logit in enumerate(LOGITS.tolist()):
        count = generated.count(token)
        expected.append(logit - count * frequency - (count > 0) * presence + bias.get(token, 0))
    np.testing.assert_allclose(changes.changed(LOGITS), expected, rtol=1e-6)


def test_the_logits_of_the_model_stay_as_they_are():
    before = LOGITS.copy()
    changes = LogitChanges(1, 1, {2: 5})
    changes.count(1)
    changes.changed(LOGITS)
    assert np.array_equal(LOGITS, before)


def test_nothing_to_change_costs_no_copy():
    changes = LogitChanges(0, 0, {})
    changes.count(3)
    assert changes.changed(LOGITS) is LOGITS


def test_a_bias_of_100_below_excludes_a_token():
    """Even one whose logit is larger than all others by more than that."""
    changed = LogitChanges(0, 0, {1: -100, 3: -99.5}).changed(LOGITS + np.float32([0, 1000, 0, 0, 0]))
    assert changed[1] == -np.inf
    assert changed[3] == LOGITS[3] - np.float32(99.5)


@pytest.mark.filterwarnings("error")
def test_an_infinite_logit_is_left_to_the_sampler_without_a_warning():
    changed = LogitChanges(0, 0, {1: -100, 3: 1}).changed(LOGITS + np.float32([0, np.inf, 0, np.inf, 0]))
    assert np.isnan(changed[1])
    assert changed[3] == np.inf
