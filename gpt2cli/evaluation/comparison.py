"""From what the models have done to figures that can be compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gpt2cli.config import EvaluationConfig
from gpt2cli.evaluation import scores as measures
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate, Statistic, estimates
from gpt2cli.evaluation.data import Instructions, Task, Texts
from gpt2cli.evaluation.results import Evaluation, ModelResult, RecordResult
from gpt2cli.evaluation.scores import Score


@dataclass(frozen=True)
class Found:
    """What one model has done: the table of `likelihood.collect`, and its answers by task."""

    table: Tensor
    answers: dict[int, Answer]


def _perplexity(sums: list[float]) -> float:
    mean = sums[0] / sums[2]
    return math.exp(mean) if mean < 700 else math.inf  # beyond which there is no such number


LIKELIHOOD: dict[str, Statistic] = {
    "loss": lambda sums: sums[0] / sums[2],
    "perplexity": _perplexity,
    "accuracy": lambda sums: sums[1] / sums[2],
}
"""Figures from the sums of `likelihood.collect`, each weighing every token alike."""


def compare(
    names: Sequence[str],
    data: Instructions | Texts,
    config: EvaluationConfig,
    max_length: int,
    found: Sequence[Found],
    chosen: Sequence[int],
    skipped: int,
) -> Evaluation:
    """All figures of all models, over the records that every one of them has scored; `chosen` were answered."""
    scored = (found[0].table[:, 2] > 0).clone()
    for other in found[1:]:
        scored &= other.table[:, 2] > 0
    tables = [one.table[scored] for one in found]
    figures: dict[str, tuple[list[Estimate], list[Estimate]]] = {}
    for key, statistic in LIKELIHOOD.items():
        figures[key] = estimates(tables, statistic, config.resamples, config.seed)
    tasks: list[Task] = [data.tasks[i] for i in chosen] if isinstance(data, Instructions) else []
    references = [task.record.output.strip() for task in tasks]
    answers = [[one.answers[i] for i in chosen] for one in found]
    scores = [_scores(said, references, config) for said in answers] if tasks else []
    for key in scores[0] if scores else ():
        each = [of_model[key] for of_model in scores]
        figures[key] = estimates([score.table for score in each], each[0].statistic, config.resamples, config.seed)
    rouge = [of_model["rouge_l"].of_each() for of_model in scores]
    is_text = isinstance(data, Texts)
    return Evaluation(
        data=data.source,
        kind="text" if is_text else "alpaca",
        split="all" if isinstance(data, Texts) else data.split,
        records=len(data.tokens) if isinstance(data, Texts) else len(data.tasks) - skipped,
        skipped=skipped,
        reference_tokens=sum(len(task.response) for task in tasks) / len(tasks) if tasks else None,
        settings={"stride" if is_text else "max_length": config.stride if is_text else max_length}
        | {"max_new_tokens": config.sampling.max_new_tokens, "temperature": config.sampling.temperature}
        | {"resamples": config.resamples, "seed": config.seed},
        models=[
            _result(number, name, int(table[:, 2].sum()), figures)
            for number, (name, table) in enumerate(zip(names, tables, strict=True))
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


def _scores(answers: Sequence[Answer], references: Sequence[str], config: EvaluationConfig) -> dict[str, Score]:
    found = measures.scores(answers, references)
    if config.bertscore:
        found["bertscore"] = measures.bertscore([answer.text for answer in answers], references)
    return found


def _result(
    number: int, name: str, tokens: int, figures: dict[str, tuple[list[Estimate], list[Estimate]]]
) -> ModelResult:
    own = {key: values[number] for key, (values, _) in figures.items()}
    differences = {key: values[number - 1] for key, (_, values) in figures.items()} if number else {}
    return ModelResult(name, tokens, own, differences)
