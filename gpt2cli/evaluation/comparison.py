"""From the models' predictions and answers to figures that can be compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2cli.config import EvaluationConfig
from gpt2cli.evaluation import scores as measures
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate, Statistic, estimates
from gpt2cli.evaluation.evaluation_data import Instructions, Task, Texts
from gpt2cli.evaluation.likelihood import chunk_sizes
from gpt2cli.evaluation.results import Evaluation, ModelResult, RecordResult
from gpt2cli.evaluation.scores import Score


@dataclass(frozen=True)
class Found:
    """What one model has done: the table of `likelihood.collect`, and its answers by task.

    There is no table of answers that were made elsewhere.
    """

    table: Tensor | None
    answers: dict[int, Answer]


Figure = Mapping[int, tuple[Estimate, Estimate | None]]
"""Of the models that have it, by their number: the figure, and the difference to the first of them (None for that)."""


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # beyond which there is no such number


LIKELIHOOD: dict[str, Statistic] = {
    "loss": lambda sums: sums[0] / sums[2],
    "perplexity": lambda sums: _exp(sums[0] / sums[2]),
    "accuracy": lambda sums: sums[1] / sums[2],
}
"""Figures from the sums of `likelihood.collect`, each weighing every token alike."""

OF_TEXT: dict[str, Statistic] = {
    "bits_per_byte": lambda sums: sums[0] / math.log(2) / sums[3],
    "word_perplexity": lambda sums: _exp(sums[0] / sums[4]) if sums[4] else math.inf,
}
"""Figures from these sums and those of `likelihood.chunk_sizes`: bytes of UTF-8, and words between white space.

They are those of lm-evaluation-harness, and can be compared between models with different tokenizers. Its words are
counted by `re.split`, which finds one more where a text begins or ends with white space.
"""


def compare(
    names: Sequence[str],
    data: Instructions | Texts,
    config: EvaluationConfig,
    max_length: int | None,
    found: Sequence[Found],
    chosen: Sequence[int],
    skipped: int,
) -> Evaluation:
    """All figures of all models, over the records that every one of them has scored; `chosen` were answered."""
    tables = _scored_tables(data, found)
    statistics = LIKELIHOOD | (OF_TEXT if isinstance(data, Texts) else {})
    figures = {key: _estimated(tables, statistic, config) for key, statistic in statistics.items() if tables}
    tasks: list[Task] = [data.tasks[i] for i in chosen] if isinstance(data, Instructions) else []
    references = [task.record.output.strip() for task in tasks]
    answers = [[one.answers[i] for i in chosen] for one in found]
    scores = [_scores(said, references, config) for said in answers] if tasks else []
    for key in dict.fromkeys(key for of_model in scores for key in of_model):  # in order, each once
        of_models = {number: of_model[key] for number, of_model in enumerate(scores) if key in of_model}
        statistic = next(iter(of_models.values())).statistic
        figures[key] = _estimated({number: score.table for number, score in of_models.items()}, statistic, config)
    rouge = [of_model["rouge_l"].of_each() for of_model in scores]
    is_text = isinstance(data, Texts)
    window = {"stride": config.stride} if is_text else {"max_length": max_length} if max_length else {}
    return Evaluation(
        data=data.source,
        kind="text" if is_text else "alpaca",
        split="all" if isinstance(data, Texts) else data.split,
        records=len(data.tokens) if isinstance(data, Texts) else len(data.tasks) - skipped,
        skipped=skipped,
        reference_tokens=sum(len(task.response) for task in tasks) / len(tasks) if tasks else None,
        settings=window
        | {"max_new_tokens": config.sampling.max_new_tokens, "temperature": config.sampling.temperature}
        | {"resamples": config.resamples, "seed": config.seed},
        models=[
            _result(number, name, int(tables[number][:, 2].sum()) if number in tables else None, figures)
            for number, name in enumerate(names)
        ],
        answered=[
            RecordResult(
                task.record.instruction,
                task.record.input,
                references[i],
                [said[i] for said in answers],
                [of_model[i] for of_model in rouge],
            )
            for i, task in enumerate(tasks)
        ],
    )


def _scored_tables(data: Instructions | Texts, found: Sequence[Found]) -> dict[int, Tensor]:
    """The tables of the models that have predicted something, by their numbers: the rows that all have predicted.

    For texts the tables have two columns more, the bytes and words.
    """
    tables = {number: one.table for number, one in enumerate(found) if one.table is not None}
    if not tables:
        return {}
    scored = torch.stack([table[:, 2] > 0 for table in tables.values()]).all(dim=0)
    if isinstance(data, Texts):
        sizes = chunk_sizes(data.sizes)
        tables = {number: torch.cat([table, sizes], dim=1) for number, table in tables.items()}
    return {number: table[scored] for number, table in tables.items()}


def _estimated(tables: Mapping[int, Tensor], statistic: Statistic, config: EvaluationConfig) -> Figure:
    own, changes = estimates([*tables.values()], statistic, config.resamples, config.seed)
    return dict(zip(tables, zip(own, [None, *changes], strict=True), strict=True))


def _scores(answers: Sequence[Answer], references: Sequence[str], config: EvaluationConfig) -> dict[str, Score]:
    found = measures.scores(answers, references)
    if config.bertscore:
        from gpt2cli.evaluation.bertscore import bertscore

        found |= bertscore([answer.text for answer in answers], references, config.bertscore_model)
    return found


def _result(number: int, name: str, tokens: int | None, figures: Mapping[str, Figure]) -> ModelResult:
    mine = {key: figure[number] for key, figure in figures.items() if number in figure}
    changes = {key: change for key, (_, change) in mine.items() if change is not None}
    return ModelResult(name, tokens, {key: own for key, (own, _) in mine.items()}, changes)
