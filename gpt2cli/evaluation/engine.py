"""The evaluation engine: a generator that scores models, generates their answers and compares them.

It prints nothing, and writes only the partial results that an interrupted run continues from.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from gpt2cli.config import EvaluationConfig, SamplingConfig
from gpt2cli.data.splits import sample
from gpt2cli.errors import DataError, UsageError
from gpt2cli.evaluation.answers import Answer, answer
from gpt2cli.evaluation.compared_models import Candidate
from gpt2cli.evaluation.comparison import Findings, compare
from gpt2cli.evaluation.evaluation_data import Instructions, Texts, sequences
from gpt2cli.evaluation.events import Advanced, Completed, Event
from gpt2cli.evaluation.given_answers import Given
from gpt2cli.evaluation.likelihood import RecordSource, Source, Sums, TextSource, collect, portions, score
from gpt2cli.evaluation.partial_results import PartialResults
from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.device import TOKENS_PER_PASS
from gpt2cli.progress import Note
from gpt2cli.prompts import PromptTemplate


@dataclass(frozen=True)
class Job:
    """The input of an evaluation.

    max_length  the largest number of tokens of a record: the smallest of the models' windows; None without models
    given       answers that were made elsewhere, to be compared with those of the models
    """

    candidates: Sequence[Candidate]
    data: Instructions | Texts
    config: EvaluationConfig
    max_length: int | None
    given: Sequence[Given] = ()


class _ModelPlan(NamedTuple):
    """The work of one model."""

    prompts: dict[int, list[int]]  # by the index of the task
    template: PromptTemplate
    source: Source | None  # None for plain text, whose windows depend on the model


class _Plan(NamedTuple):
    models: list[_ModelPlan]
    answered: list[int]  # the indices of the tasks to answer
    skipped: int  # records whose prompts fill the window


def evaluate(job: Job) -> Iterator[Event]:
    """Evaluate one model after the other, then compare them. The last event is Completed.

    Raises DataError if no record fits the window, DivergedError for losses that are not finite, and the errors of
    loading a model.
    """
    plan = _plan(job)
    if plan.skipped and isinstance(job.data, Instructions):
        skipped = f"{plan.skipped:,} of {len(job.data.tasks):,} records"
        yield Note(f"left out {skipped}, whose prompts alone fill the window of {job.max_length:,} tokens")
    found, partial_results = [], []
    for candidate, model_plan in zip(job.candidates, plan.models, strict=True):
        findings, partial = yield from _examine(candidate, model_plan, job)
        found.append(findings)
        partial_results.append(partial)
    found += [Findings(given.name, None, given.answers) for given in job.given]
    yield Completed(
        compare(
            found,
            job.data,
            job.config,
            max_length=job.max_length,
            answered=plan.answered,
            skipped=plan.skipped,
        )
    )
    for partial in partial_results:
        partial.discard()


def _plan(job: Job) -> _Plan:
    """Choose the tasks to answer, and build the models' prompts and sequences."""
    if isinstance(job.data, Texts):
        return _Plan([_ModelPlan({}, candidate.template, None) for candidate in job.candidates], [], 0)
    tasks, prepared = job.data.tasks, {}
    if job.max_length is None:
        return _Plan([], sample(len(tasks), job.config.answers, job.config.seed), 0)
    for candidate in job.candidates:
        if candidate.template not in prepared:
            prepared[candidate.template] = sequences(tasks, candidate.template, job.max_length)
    fitting = sorted(set.intersection(*(set(fits) for _, _, fits in prepared.values())))
    if not fitting:
        raise DataError(
            f"{job.data.source}: no record is left: every prompt alone fills the window of {job.max_length} tokens"
        )
    chosen = [fitting[i] for i in sample(len(fitting), job.config.answers, job.config.seed)]
    plans = []
    for candidate in job.candidates:
        prompts, data, fits = prepared[candidate.template]
        source = RecordSource(data, fits, len(tasks))
        plans.append(_ModelPlan({i: prompts[i] for i in chosen}, candidate.template, source))
    return _Plan(plans, chosen, len(tasks) - len(fitting))


def _identity(job: Job, plan: _ModelPlan) -> list[Any]:
    """Everything besides the model that its results depend on. The number of answers is not among it."""
    digest = hashlib.sha256()
    if isinstance(job.data, Texts):
        for text in job.data.tokens:
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text.numpy().tobytes())
    else:
        digest.update(json.dumps([[asdict(task.record), task.response] for task in job.data.tasks]).encode())
    sampling = _sampling(job, plan)
    return [digest.hexdigest(), plan.template.to_dict(), job.max_length, job.config.stride, asdict(sampling)]


def _sampling(job: Job, plan: _ModelPlan) -> SamplingConfig:
    """The job's sampling. An answer also stops where the template's next heading begins."""
    sampling = job.config.sampling
    return replace(sampling, stop=(*sampling.stop, *plan.template.headings))


def _examine(
    candidate: Candidate, plan: _ModelPlan, job: Job
) -> Generator[Event, None, tuple[Findings, PartialResults]]:
    """Load one model, score the data and generate the answers."""
    model = candidate.load()
    # the device and precision that `auto` has chosen: on another machine it may choose others
    at = (str(model.device), model.precision)
    partial = PartialResults(candidate.fingerprint(), _identity(job, plan), *at)
    problem = partial.problem
    if problem:
        yield Note(f"{problem}: an interrupted run would start again")
    if note := model.compiling_note():
        yield Note(note)
        model.prepare(lambda _: None)
    source = plan.source or _text_source(job, model)
    table = yield from _score(candidate.name, model, source, partial)
    answers = yield from _answer(candidate.name, model, plan, job, partial)
    if partial.problem != problem:
        yield Note(f"{partial.problem}: an interrupted run would start again")
    return Findings(candidate.name, table, answers), partial


def _text_source(job: Job, model: Decoder) -> TextSource:
    assert isinstance(job.data, Texts)
    window = model.config.block_size
    return TextSource(job.data.tokens, window, check_stride(job.config.stride, window))


def check_stride(stride: int | None, block_size: int) -> int:
    """The stride, by default half of the window. Raises UsageError for a stride that leaves tokens out."""
    chosen = max(1, block_size // 2) if stride is None else stride
    if chosen >= block_size:
        raise UsageError(
            f"--stride must be below the model's window of {block_size} tokens, so that each has one before it, "
            f"not {chosen}"
        )
    return chosen


def _score(name: str, model: Decoder, source: Source, partial: PartialResults) -> Generator[Event, None, Tensor]:
    """Compute the losses, (units, 3) as of `collect`. Yields the number of tokens that were read."""
    max_tokens = TOKENS_PER_PASS[model.device.type]
    total, done, reused, parts = sum(source.lengths), 0, 0, []
    yield Advanced(name, "scoring", done, total)
    for chosen in portions(source.lengths, max_tokens):
        key = f"score {chosen.start} to {chosen.stop}"
        tokens = sum(source.lengths[i] for i in chosen)
        part = Sums.restored(partial.findings.get(key), source, chosen)
        if part is None:
            part = score(model, source, chosen, max_tokens)
            partial.add(key, [part.units, part.losses, part.right, part.tokens])
        else:
            reused += tokens
        parts.append(part)
        done += tokens
        yield Advanced(name, "scoring", done, total, reused)
    return collect(parts, source.units)


def _answer(
    name: str, model: Decoder, plan: _ModelPlan, job: Job, partial: PartialResults
) -> Generator[Event, None, dict[int, Answer]]:
    """Generate the answers, by the index of their task."""
    sampling = _sampling(job, plan)
    restored = {i: Answer.restored(partial.findings.get(f"answer {i}"), sampling.max_new_tokens) for i in plan.prompts}
    found = {i: reply for i, reply in restored.items() if reply is not None}
    left = {i: prompt for i, prompt in plan.prompts.items() if i not in found}
    reused, total = len(found), len(plan.prompts)
    if total:
        yield Advanced(name, "answering", reused, total, reused)
    for i, reply in answer(model, left, sampling):
        partial.add(f"answer {i}", [reply.text, reply.tokens, reply.finish_reason])
        found[i] = reply
        yield Advanced(name, "answering", len(found), total, reused)
    return found
