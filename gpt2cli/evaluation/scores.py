"""How near an answer comes to the reference. Every score is a function of numbers that add up over the answers."""

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
    """A score of many answers: (n, k) numbers, and the figure that their sums give."""

    table: Tensor
    statistic: Statistic

    def of_each(self) -> list[float]:
        """The score of each answer alone."""
        return [self.statistic(row) for row in self.table.tolist()]


def scores(answers: Sequence[Answer], references: Sequence[str]) -> dict[str, Score]:
    """All but BERTScore, by their names in the results.

    bleu           BLEU-4 of the whole, 0 to 100 (Papineni et al. 2002), by sacrebleu with its defaults
    chrf           chrF of the whole, 0 to 100 (Popović 2015), by sacrebleu with its defaults
    rouge_l        mean over the answers, 0 to 1
    exact_match    the share of answers that are the reference, but for blank space at the ends
    answer_tokens  mean length
    ended          the share of answers that ended before the limit; left out unless it is known of every answer
    """
    from sacrebleu.metrics.base import Metric
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    texts = [answer.text for answer in answers]

    def by_sacrebleu(metric: Metric) -> Score:
        # what its own significance tests are made of; its public functions give the figure of a whole corpus only
        table = metric._extract_corpus_statistics(texts, [list(references)])
        return Score(
            torch.tensor(table, dtype=torch.float64),
            lambda sums: float(metric._aggregate_and_compute([[int(number) for number in sums]]).score),
        )

    pairs = list(zip(answers, references, strict=True))
    found = {
        "bleu": by_sacrebleu(BLEU(force=True)),  # which keeps it from warning of how a text looks
        "chrf": by_sacrebleu(CHRF()),
        "rouge_l": mean_of(rouge_l(answer.text, reference) for answer, reference in pairs),
        "exact_match": mean_of(float(answer.text == reference.strip()) for answer, reference in pairs),
        "answer_tokens": mean_of(float(answer.tokens) for answer in answers),
    }
    if all(answer.finish_reason for answer in answers):
        found["ended"] = mean_of(float(answer.finish_reason != "length") for answer in answers)
    return found


def mean_of(values: Iterable[float]) -> Score:
    """A score whose figure is the mean of each answer's."""
    column = torch.tensor(list(values), dtype=torch.float64)
    return Score(torch.stack([column, torch.ones_like(column)], dim=1), lambda sums: sums[0] / sums[1])


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L: the F-measure of the longest common subsequence of words, 0 to 1.

    "ROUGE: A Package for Automatic Evaluation of Summaries", Lin 2004, section 3.1, with beta = 1; words are runs of
    letters and digits in lower case, as for Google's rouge-score without its stemming, but in any script.
    """
    ours, theirs = (_WORD.findall(text.lower()) for text in (answer, reference))
    common = longest_common_subsequence(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Its length, a word of `b` at a time, for all places of `a` at once in the bits of an integer.

    "A fast and practical bit-vector algorithm for the longest common subsequence problem", Crochemore et al. 2001: a
    bit that has become 0 is where the longest subsequence gets one longer.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(a)) - 1
    row = every
    for word in b:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & every
    return len(a) - row.bit_count()
