"""Computes the figures of an evaluation from the models' losses and answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpt2cli.config import EvaluationConfig
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Statistic, estimates
from gpt2cli.evaluation.evaluation_data import Instructions, Texts
from gpt2cli.evaluation.likelihood import chunk_sizes
from gpt2cli.evaluation.results import Evaluation, ModelResult, RecordResult
from gpt2cli.evaluation.scores import Score, answer_scores, length_scores


@dataclass(frozen=True)
class Findings:
    """The losses and the answers of one model, or the answers of one file. Files come after the models.

    table    (units, 3) of `likelihood.collect`; None for a file of answers, and for instructions without references
    answers  by the index of their task
    """

    name: str
    table: Tensor | None
    answers: dict[int, Answer]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # math.exp raises OverflowError above 709


LIKELIHOOD: dict[str, Statistic] = {
    "loss": lambda sums: sums[0] / sums[2],
    "perplexity": lambda sums: _exp(sums[0] / sums[2]),
    "accuracy": lambda sums: sums[1] / sums[2],
}
"""Figures from the column sums of `likelihood.collect`. Every token has the same weight."""

OF_TEXT: dict[str, Statistic] = {
    "bits_per_byte": lambda sums: sums[0] / math.log(2) / sums[3],
    "word_perplexity": lambda sums: _exp(sums[0] / sums[4]) if sums[4] else math.inf,
}
"""Figures that also use the sums of `likelihood.chunk_sizes`: UTF-8 bytes, and words between white space.

With these figures, models with different tokenizers can be compared. The definitions are those of
lm-evaluation-harness. It counts words by `re.split`, and so one more where a text begins or ends with white space.
"""


def compare(
    found: Sequence[Findings],
    data: Instructions | Texts,
    config: EvaluationConfig,
    *,
    max_length: int | None,
    fitting: Sequence[int],
    answered: Sequence[int],
) -> Evaluation:
    """Compute all figures of all models, and their differences from the first model.

    max_length  the largest number of tokens of a record; None without models
    fitting     the indices of the tasks whose prompts leave room for an answer; the others were left out
    answered    the indices of the tasks that were answered
    """
    tasks = [data.tasks[i] for i in answered] if isinstance(data, Instructions) else []
    references = None
    if isinstance(data, Instructions) and data.has_references:
        references = [task.record.output.strip() for task in tasks]
    answers = [[model.answers[i] for i in answered] for model in found]
    scores = _likelihood_scores(data, found)
    if tasks:
        scores = [of | _answer_scores(each, references, config) for of, each in zip(scores, answers, strict=True)]
    rouge_l = [of_model["rouge_l"].of_each() for of_model in scores if "rouge_l" in of_model]
    return Evaluation(
        data=data.source,
        kind="text" if isinstance(data, Texts) else "alpaca" if data.has_references else "questions",
        split="all" if isinstance(data, Texts) else data.split,
        records=len(data.tokens) if isinstance(data, Texts) else len(fitting),
        skipped=0 if isinstance(data, Texts) else len(data.tasks) - len(fitting),
        reference_tokens=sum(len(task.response) for task in tasks) / len(tasks) if tasks and references else None,
        settings=_settings(config, isinstance(data, Texts), max_length),
        models=_model_results([model.name for model in found], scores, config),
        answered=[
            RecordResult(
                instruction=task.record.instruction,
                input=task.record.input,
                reference=references[i] if references else None,
                answers=[of_model[i] for of_model in answers],
                rouge_l=[of_model[i] for of_model in rouge_l],
                earlier=task.record.earlier,
                system=task.record.system,
            )
            for i, task in enumerate(tasks)
        ],
        turns=0 if isinstance(data, Texts) else sum(len(data.tasks[i].record.exchanges) for i in fitting),
    )


def _likelihood_scores(data: Instructions | Texts, found: Sequence[Findings]) -> list[dict[str, Score]]:
    """The figures of each model's losses, over the units that every model has scored. Files of answers have none."""
    tables = [model.table for model in found if model.table is not None]
    if not tables:
        return [{} for _ in found]
    scored = torch.stack([table[:, 2] > 0 for table in tables]).all(dim=0)
    statistics = LIKELIHOOD
    if isinstance(data, Texts):
        statistics, sizes = LIKELIHOOD | OF_TEXT, chunk_sizes(data.sizes)
        tables = [torch.cat([table, sizes], dim=1) for table in tables]
    scores = [{key: Score(table[scored], statistic) for key, statistic in statistics.items()} for table in tables]
    return scores + [{} for _ in found[len(tables) :]]


def _answer_scores(
    answers: Sequence[Answer], references: Sequence[str] | None, config: EvaluationConfig
) -> dict[str, Score]:
    if references is None:
        return length_scores(answers)
    found = answer_scores(answers, references) | length_scores(answers)
    if config.bertscore:
        from gpt2cli.evaluation.bertscore import bertscore

        found |= bertscore([answer.text for answer in answers], references, config.bertscore_model)
    return found


def _model_results(
    names: Sequence[str], scores: Sequence[Mapping[str, Score]], config: EvaluationConfig
) -> list[ModelResult]:
    """The figures of all models with their intervals. A score may be missing for some models."""
    results = [
        ModelResult(name, int(of["loss"].table[:, 2].sum()) if "loss" in of else None, {}, {})
        for name, of in zip(names, scores, strict=True)
    ]
    for key in dict.fromkeys(key for of_model in scores for key in of_model):  # each key once, in the models' order
        having = [i for i, of_model in enumerate(scores) if key in of_model]
        tables = [scores[i][key].table for i in having]
        figures, differences = estimates(tables, scores[having[0]][key].statistic, config.resamples, config.seed)
        for i, figure in zip(having, figures, strict=True):
            results[i].figures[key] = figure
        for i, difference in zip(having[1:], differences, strict=True):
            results[i].differences[key] = difference
    return results


def _settings(config: EvaluationConfig, is_text: bool, max_length: int | None) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if is_text:
        settings["stride"] = config.stride
    else:
        if max_length:
            settings["max_length"] = max_length
        settings |= {"max_new_tokens": config.sampling.max_new_tokens, "temperature": config.sampling.temperature}
    return settings | {"resamples": config.resamples, "seed": config.seed}
