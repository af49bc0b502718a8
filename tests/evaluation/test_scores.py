"""Scores against sacrebleu's own and against their definitions."""

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.scores import answer_scores, length_scores, longest_common_subsequence, rouge_l

REFERENCES = ["The cat sat on the mat.", "Blue whales, I think!\nAnd krill.", "Γειά σου 👋", "yes", "1, 2 and 3 ."]
SAID = ["The cat sat on a mat .", "Blue whales eat krill.", "Γειά σου", "", "1, 2 and 3 ."]
WORDS = st.lists(st.sampled_from("abc"), max_size=9)


def said(texts: list[str]) -> list[Answer]:
    return [Answer(text, len(text), "length" if i == 1 else "eos") for i, text in enumerate(texts)]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_bleu_and_chrf_are_sacrebleus(n):
    found = answer_scores(said(SAID[:n]), REFERENCES[:n])
    theirs = {
        "bleu": sacrebleu.corpus_bleu(SAID[:n], [REFERENCES[:n]]).score,
        "chrf": sacrebleu.corpus_chrf(SAID[:n], [REFERENCES[:n]]).score,
    }
    for key, value in theirs.items():
        assert found[key].statistic(found[key].table.sum(dim=0).tolist()) == value
    assert theirs["bleu"] > 0


def test_the_means():
    found = answer_scores(said(SAID), REFERENCES) | length_scores(said(SAID))
    value = {key: score.statistic(score.table.sum(dim=0).tolist()) for key, score in found.items()}
    assert value["exact_match"] == 1 / 5
    assert value["ended"] == 4 / 5
    assert value["answer_tokens"] == sum(map(len, SAID)) / 5
    # common words 5 of 6 and 6, 3 of 4 and 6, all, none, all
    by_hand = [2 * 5 / (6 + 6), 2 * 3 / (4 + 6), 1.0, 0.0, 1.0]
    assert found["rouge_l"].of_each() == pytest.approx(by_hand)
    assert value["rouge_l"] == pytest.approx(sum(by_hand) / 5)


def test_whether_answers_ended_is_not_told_of_answers_that_were_made_elsewhere():
    assert "ended" not in length_scores([Answer("a", 1, "eos"), Answer("b", 1, "")])


def test_rouge_l_counts_words_in_order_in_any_script():
    assert rouge_l("The Cat, sat!", "the cat sat") == 1
    assert rouge_l("police killed the gunman", "police kill the gunman") == 3 / 4  # the paper's own examples
    assert rouge_l("the gunman kill police", "police kill the gunman") == 2 / 4
    assert rouge_l("Γειά ΣΟΥ", "γειά σου 👋") == 1
    assert rouge_l("", "a") == rouge_l("...", "?") == 0


def plain_lcs(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return plain_lcs(a[:-1], b[:-1]) + 1
    return max(plain_lcs(a[:-1], b), plain_lcs(a, b[:-1]))


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_that_of_the_definition(a, b):
    assert longest_common_subsequence(a, b) == plain_lcs(a, b)
