"""Computes the figures of an evaluation from the models' losses and answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpt2cli.config import EvaluationConfig
from gpt2cli.evaluation import scores as measures
from gpt2cli.evaluation.answers import Answer
from gpt2cli.evaluation.bootstrap import Estimate, Statistic, estimates
from gpt2cli.evaluation.evaluation_data import Instructions, Texts
from gpt2cli.evaluation.likelihood import chunk_sizes
from gpt2cli.evaluation.results import Evaluation, ModelResult, RecordResult
from gpt2cli.evaluation.scores import Score


@dataclass(frozen=True)
class Findings:
    """The losses and the answers of one model, or the answers of one file.

    table    (units, 3) of `likelihood.collect`; None for a file of answers
    answers  by the index of their task
    """

    name: str
    table: Tensor | None
    answers: dict[int, Answer]


Figure = Mapping[int, tuple[Estimate, Estimate | None]]
"""By the index of a model: its figure, and the difference from the first model that has one (None for the first)."""


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

These figures allow comparing models with different tokenizers. The definitions are those of lm-evaluation-harness,
which counts words by `re.split`, and thus one more where a text begins or ends with white space.
"""


def compare(
    found: Sequence[Findings],
    data: Instructions | Texts,
    config: EvaluationConfig,
    *,
    max_length: int | None,
    answered: Sequence[int],
    skipped: int,
) -> Evaluation:
    """Compute all figures of all models, and their differences from the first model.

    max_length  the largest number of tokens of a record; None if no model was run
    answered    the indices of the tasks that were answered
    skipped     the number of records that were left out, as their prompts fill the window
    """
    tables = _scored_tables(data, found)
    is_text = isinstance(data, Texts)
    tasks = [data.tasks[i] for i in answered] if isinstance(data, Instructions) else []
    references = [task.record.output.strip() for task in tasks]
    answers = [[model.answers[i] for i in answered] for model in found]
    scores = [_scores(of_model, references, config) for of_model in answers] if tasks else []
    rouge_l = [of_model["rouge_l"].of_each() for of_model in scores]
    statistics = LIKELIHOOD | (OF_TEXT if is_text else {})
    figures = {key: _estimated(tables, statistic, config) for key, statistic in statistics.items() if tables}
    figures |= _answer_figures(scores, config)
    return Evaluation(
        data=data.source,
        kind="text" if is_text else "alpaca",
        split="all" if isinstance(data, Texts) else data.split,
        records=len(data.tokens) if isinstance(data, Texts) else len(data.tasks) - skipped,
        skipped=skipped,
        reference_tokens=sum(len(task.response) for task in tasks) / len(tasks) if tasks else None,
        settings=_settings(config, is_text, max_length),
        models=[_model_result(i, model.name, tables, figures) for i, model in enumerate(found)],
        answered=[
            RecordResult(
                instruction=task.record.instruction,
                input=task.record.input,
                reference=references[i],
                answers=[of_model[i] for of_model in answers],
                rouge_l=[of_model[i] for of_model in rouge_l],
            )
            for i, task in enumerate(tasks)
        ],
    )


def _scored_tables(data: Instructions | Texts, found: Sequence[Findings]) -> dict[int, Tensor]:
    """The tables by the index of their model, reduced to the rows that every model has scored.

    Tables of texts have two more columns: bytes and words.
    """
    tables = {i: model.table for i, model in enumerate(found) if model.table is not None}
    if not tables:
        return {}
    scored = torch.stack([table[:, 2] > 0 for table in tables.values()]).all(dim=0)
    if isinstance(data, Texts):
        sizes = chunk_sizes(data.sizes)
        tables = {i: torch.cat([table, sizes], dim=1) for i, table in tables.items()}
    return {i: table[scored] for i, table in tables.items()}


def _estimated(tables: Mapping[int, Tensor], statistic: Statistic, config: EvaluationConfig) -> Figure:
    figures, differences = estimates([*tables.values()], statistic, config.resamples, config.seed)
    return dict(zip(tables, zip(figures, [None, *differences], strict=True), strict=True))


def _scores(answers: Sequence[Answer], references: Sequence[str], config: EvaluationConfig) -> dict[str, Score]:
    found = measures.scores(answers, references)
    if config.bertscore:
        from gpt2cli.evaluation.bertscore import bertscore

        found |= bertscore([answer.text for answer in answers], references, config.bertscore_model)
    return found


def _answer_figures(scores: Sequence[Mapping[str, Score]], config: EvaluationConfig) -> dict[str, Figure]:
    """The figures of all scores. A score may be missing for some models."""
    figures = {}
    for key in dict.fromkeys(key for of_model in scores for key in of_model):  # each key once, in the models' order
        of_models = {i: of_model[key] for i, of_model in enumerate(scores) if key in of_model}
        statistic = next(iter(of_models.values())).statistic
        figures[key] = _estimated({i: score.table for i, score in of_models.items()}, statistic, config)
    return figures


def _settings(config: EvaluationConfig, is_text: bool, max_length: int | None) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if is_text:
        settings["stride"] = config.stride
    elif max_length:
        settings["max_length"] = max_length
    settings |= {"max_new_tokens": config.sampling.max_new_tokens, "temperature": config.sampling.temperature}
    return settings | {"resamples": config.resamples, "seed": config.seed}


def _model_result(i: int, name: str, tables: Mapping[int, Tensor], figures: Mapping[str, Figure]) -> ModelResult:
    of_model = {key: figure[i] for key, figure in figures.items() if i in figure}
    return ModelResult(
        model=name,
        tokens=int(tables[i][:, 2].sum()) if i in tables else None,
        figures={key: estimate for key, (estimate, _) in of_model.items()},
        differences={key: difference for key, (_, difference) in of_model.items() if difference is not None},
    )
