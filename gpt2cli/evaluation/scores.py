"""Scores of answers against references. Every score is a function of numbers that are summed over the answers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Statistic

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Score:
    """A score of n answers: a table (n, k), and the function from its column sums to the figure."""

    table: Tensor
    statistic: Statistic

    def of_each(self) -> list[float]:
        """The score of each single answer."""
        return [self.statistic(row) for row in self.table.tolist()]


def answer_scores(answers: Sequence[Answer], references: Sequence[str]) -> dict[str, Score]:
    """All scores against references except BERTScore, by their names in the results.

    bleu           corpus BLEU-4, 0 to 100 (Papineni et al. 2002), by sacrebleu with its defaults
    chrf           corpus chrF, 0 to 100 (Popović 2015), by sacrebleu with its defaults
    rouge_l        mean over the answers, 0 to 1
    exact_match    fraction of answers that equal the reference, apart from white space at the ends
    """
    from sacrebleu.metrics.base import Metric
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    texts = [answer.text for answer in answers]

    def by_sacrebleu(metric: Metric) -> Score:
        # Private, as sacrebleu's public functions return no sums: see its version bound in pyproject.toml.
        table = metric._extract_corpus_statistics(texts, [list(references)])
        return Score(
            torch.tensor(table, dtype=torch.float64),
            lambda sums: float(metric._aggregate_and_compute([[int(number) for number in sums]]).score),
        )

    pairs = list(zip(answers, references, strict=True))
    return {
        "bleu": by_sacrebleu(BLEU(force=True)),  # `force` suppresses a warning about tokenized texts
        "chrf": by_sacrebleu(CHRF()),
        "rouge_l": mean_of(rouge_l(answer.text, reference) for answer, reference in pairs),
        "exact_match": mean_of(float(answer.text == reference.strip()) for answer, reference in pairs),
    }


def length_scores(answers: Sequence[Answer]) -> dict[str, Score]:
    """What the lengths of answers tell, by its name in the results.

    answer_tokens  mean number of tokens
    ended          fraction of answers that ended before the token limit; only if this is known of every answer
    """
    found = {"answer_tokens": mean_of(float(answer.tokens) for answer in answers)}
    if all(answer.finish_reason for answer in answers):
        found["ended"] = mean_of(float(answer.finish_reason != "length") for answer in answers)
    return found


def mean_of(values: Iterable[float]) -> Score:
    """A score whose figure is the mean of the values."""
    column = torch.tensor(list(values), dtype=torch.float64)
    return Score(torch.stack([column, torch.ones_like(column)], dim=1), lambda sums: sums[0] / sums[1])


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L: the F-measure of the longest common subsequence of words, 0 to 1.

    Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1, with beta = 1. Words are runs of
    letters, digits and underscores in lower case, in any script. Google's rouge-score without stemming does the same
    for ASCII letters.
    """
    ours, theirs = (_WORD.findall(text.lower()) for text in (answer, reference))
    common = longest_common_subsequence(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    Crochemore et al. 2001, "A fast and practical bit-vector algorithm for the longest common subsequence problem":
    bit i of an integer stands for word i of `a`. The loop reads one word of `b` at a time. A bit that has become 0
    marks a word at which the longest common subsequence grows by one.
    """
    positions: dict[str, int] = {}
    for i, word in enumerate(a):
        positions[word] = positions.get(word, 0) | 1 << i
    all_ones = (1 << len(a)) - 1
    row = all_ones
    for word in b:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & all_ones
    return len(a) - row.bit_count()
