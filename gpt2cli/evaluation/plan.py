"""The work of an evaluation: which tasks are scored and answered, and for each model the tokens of both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpt2cli.config import EvaluationConfig
from gpt2cli.counted import counted
from gpt2cli.data.splits import sample
from gpt2cli.data.turns import template_for
from gpt2cli.errors import DataError
from gpt2cli.evaluation.compared_models import Candidate
from gpt2cli.evaluation.evaluation_data import Instructions, Texts
from gpt2cli.evaluation.layout import lay_out, sequences
from gpt2cli.evaluation.likelihood import RecordSource
from gpt2cli.generation.conversation import compose
from gpt2cli.prompts import PromptTemplate


@dataclass(frozen=True)
class Plan:
    """The work of all models.

    fitting   the indices of the tasks whose prompts leave room for an answer, with every model
    answered  the indices of the tasks to answer
    prompts   for each model, the prompts to answer, by the index of their task
    sources   for each model, the sequences to predict. They are None for plain text, whose windows depend on the model,
              and for instructions without references
    notes     remarks for the person who gave the data
    """

    fitting: Sequence[int]
    answered: Sequence[int]
    prompts: Sequence[dict[int, list[int]]]
    sources: Sequence[RecordSource | None]
    notes: Sequence[str] = ()


def make_plan(
    candidates: Sequence[Candidate], data: Instructions | Texts, config: EvaluationConfig, max_length: int | None
) -> Plan:
    """Choose the tasks to answer, and build the models' prompts and sequences.

    Each model reads the tasks in its own template, and all are scored on the same turns. Raises DataError if no task
    fits into `max_length` tokens.
    """
    if isinstance(data, Texts):
        return Plan([], [], [{} for _ in candidates], [None] * len(candidates))
    if max_length is None:
        every = range(len(data.tasks))
        return Plan(every, sample(len(every), config.answers, config.seed), [], [])
    templates = {candidate.template: None for candidate in candidates}
    records, responses = zip(*((task.record, task.response) for task in data.tasks), strict=True)
    laid_out = {template: lay_out(records, responses, template, max_length) for template in templates}
    fitting = [i for i in range(len(records)) if all(turns[i] for turns in laid_out.values())]
    if not fitting:
        why = f"every prompt alone fills the window of {max_length} tokens"
        raise DataError(f"{data.source}: no {data.noun} is left: {why}")
    answered = [fitting[i] for i in sample(len(fitting), config.answers, config.seed)]
    kept = {i: min(len(turns[i]) for turns in laid_out.values()) for i in fitting}
    sources: dict[PromptTemplate, RecordSource | None] = dict.fromkeys(templates)
    if data.has_references:
        for template, turns in laid_out.items():
            scored = sequences([turns[i][-kept[i] :] for i in fitting])
            sources[template] = RecordSource(scored, fitting, len(records))
    used = [candidate.template for candidate in candidates]
    prompts = {template: _prompts(data, answered, template, config, max_length) for template in templates}
    return Plan(
        fitting=fitting,
        answered=answered,
        prompts=[prompts[template] for template in used],
        sources=[sources[template] for template in used],
        notes=[*_notes_on_length(data, kept, max_length), *_notes_on_system_texts(data, candidates)],
    )


def _prompts(
    data: Instructions, answered: Sequence[int], template: PromptTemplate, config: EvaluationConfig, max_length: int
) -> dict[int, list[int]]:
    """The prompts to answer, as a chat composes them: with the earlier exchanges that leave room for an answer."""
    found = {}
    for i in answered:
        record = data.tasks[i].record
        own, room = template_for(record, template), config.sampling.max_new_tokens
        found[i], _ = compose(own, record.earlier, record, max_length, room)
    return found


def _notes_on_length(data: Instructions, kept: Mapping[int, int], max_length: int) -> Iterator[str]:
    """Say how many tasks are left out, and how many are shortened. `kept` has the number of turns of all others."""
    window = f"the window of {max_length:,} tokens"
    if left_out := len(data.tasks) - len(kept):
        yield f"left out {left_out:,} of {len(data.tasks):,} {data.noun}s, whose prompts alone fill {window}"
    if shortened := sum(n < len(data.tasks[i].record.exchanges) for i, n in kept.items()):
        yield f"shortened {shortened:,} of {len(kept):,} {data.noun}s to the last turns, which fit into {window}"


def _notes_on_system_texts(data: Instructions, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Say which models cannot read the system texts of how many tasks."""
    names = [candidate.spec.name for candidate in candidates if not candidate.template.has_place_for_system]
    if names and (count := sum(bool(task.record.system) for task in data.tasks)):
        left_out = f"the system texts of {counted(count, data.noun)}"
        yield f"{' and '.join(names)}: left out {left_out}, as the prompt template has no preamble to replace"
