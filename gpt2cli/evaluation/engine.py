"""The evaluation engine: a generator that scores models, lets them answer, and compares them.

It neither prints nor writes anything but what is kept for a run that is interrupted (see `kept.py`).
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from gpt2cli.config import EvaluationConfig
from gpt2cli.data.splits import sample
from gpt2cli.errors import DataError, UsageError
from gpt2cli.evaluation.answers import Answer, answer
from gpt2cli.evaluation.compared_models import Candidate
from gpt2cli.evaluation.comparison import Found, compare
from gpt2cli.evaluation.evaluation_data import Instructions, Texts, sequences
from gpt2cli.evaluation.events import Event, Finished, Note, Progress
from gpt2cli.evaluation.given_answers import Given
from gpt2cli.evaluation.likelihood import RecordSource, Source, Sums, TextSource, collect, portions, score
from gpt2cli.evaluation.partial_results import PartialResults
from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.device import TOKENS_PER_PASS
from gpt2cli.prompts import PromptTemplate


@dataclass(frozen=True)
class Job:
    """Everything that an evaluation is made of.

    max_length  tokens of a record at the most: what the smallest of the models' windows holds; None without models
    given       answers that were made elsewhere, to be compared like those of the models
    """

    candidates: Sequence[Candidate]
    data: Instructions | Texts
    config: EvaluationConfig
    max_length: int | None
    given: Sequence[Given] = ()


@dataclass(frozen=True)
class _Plan:
    """What one model is to do."""

    prompts: dict[int, list[int]]  # of the tasks to answer
    template: PromptTemplate
    source: Source | None  # None for plain text: that depends on the model's window


def evaluate(job: Job) -> Iterator[Event]:
    """Evaluate each model in turn, then compare; yield what happens, the last event being Finished.

    Raises DataError if nothing is left to evaluate on, DivergedError for losses that are not finite, and whatever
    loading a model raises.
    """
    plans, chosen, skipped = _plan(job)
    if skipped and isinstance(job.data, Instructions):
        of = f"{skipped:,} of {len(job.data.tasks):,} records"
        yield Note(f"left out {of}, whose prompts alone fill the window of {job.max_length:,} tokens")
    found, kept = [], []
    names = [*(candidate.name for candidate in job.candidates), *(given.name for given in job.given)]
    for candidate, plan in zip(job.candidates, plans, strict=True):
        what, findings = yield from _examine(candidate, plan, job)
        found.append(what)
        kept.append(findings)
    found += [Found(None, given.answers) for given in job.given]
    yield Finished(compare(names, job.data, job.config, job.max_length, found, chosen, skipped))
    for findings in kept:
        findings.discard()


def _plan(job: Job) -> tuple[list[_Plan], list[int], int]:
    """What each model does, the tasks that are answered, and how many are left out, as they fit no model's window."""
    if isinstance(job.data, Texts):
        return [_Plan({}, candidate.template, None) for candidate in job.candidates], [], 0
    tasks, prepared = job.data.tasks, {}
    if job.max_length is None:
        return [], sample(len(tasks), job.config.answers, job.config.seed), 0
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
        plans.append(_Plan({i: prompts[i] for i in chosen}, candidate.template, source))
    return plans, chosen, len(tasks) - len(fitting)


def _identity(job: Job, plan: _Plan) -> list[Any]:
    """What a model's findings depend on, besides the model: not on how many answers are asked for."""
    digest = hashlib.sha256()
    if isinstance(job.data, Texts):
        for text in job.data.tokens:
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text.numpy().tobytes())
    else:
        digest.update(json.dumps([[asdict(task.record), task.response] for task in job.data.tasks]).encode())
    sampling = replace(job.config.sampling, stop=(*job.config.sampling.stop, *plan.template.headings))
    return [digest.hexdigest(), plan.template.to_dict(), job.max_length, job.config.stride, asdict(sampling)]


def _examine(candidate: Candidate, plan: _Plan, job: Job) -> Generator[Event, None, tuple[Found, PartialResults]]:
    """Let one model predict and answer."""
    model = candidate.load()
    # the device and precision that `auto` has chosen: on another machine it may choose others
    at = (str(model.device), model.precision)
    kept = PartialResults(candidate.fingerprint(), _identity(job, plan), *at)
    problem = kept.problem
    if problem:
        yield Note(f"{problem}: an interrupted run would begin anew")
    if note := model.compiling_note():
        yield Note(note)
        model.prepare(lambda _: None)
    source = plan.source or _text_source(job, model)
    table = yield from _score(candidate.name, model, source, kept)
    answers = yield from _answer(candidate.name, model, plan, job, kept)
    if kept.problem != problem:
        yield Note(f"{kept.problem}: an interrupted run would begin anew")
    return Found(table, answers), kept


def _text_source(job: Job, model: Decoder) -> TextSource:
    assert isinstance(job.data, Texts)
    window = model.config.block_size
    return TextSource(job.data.tokens, window, check_stride(job.config.stride, window))


def check_stride(stride: int | None, block_size: int) -> int:
    """The stride to take, by default half of the window. Raises UsageError for one that leaves tokens out."""
    chosen = max(1, block_size // 2) if stride is None else stride
    if chosen >= block_size:
        raise UsageError(
            f"--stride must be below the model's window of {block_size} tokens, so that each has one before it, "
            f"not {chosen}"
        )
    return chosen


def _score(name: str, model: Decoder, source: Source, kept: PartialResults) -> Generator[Event, None, Tensor]:
    """The losses of all that is to be predicted; progress in tokens read."""
    max_tokens = TOKENS_PER_PASS[model.device.type]
    total, done, again, parts = sum(source.lengths), 0, 0, []
    yield Progress(name, "scoring", done, total)
    for chosen in portions(source.lengths, max_tokens):
        name_of_part = f"score {chosen.start} to {chosen.stop}"
        part = Sums.restored(kept.found.get(name_of_part), source, chosen)
        if part is None:
            part = score(model, source, chosen, max_tokens)
            kept.add(name_of_part, [part.units, part.losses, part.right, part.tokens])
        else:
            again += sum(source.lengths[j] for j in chosen)
        parts.append(part)
        done += sum(source.lengths[j] for j in chosen)
        yield Progress(name, "scoring", done, total, again)
    return collect(parts, source.units)


def _answer(
    name: str, model: Decoder, plan: _Plan, job: Job, kept: PartialResults
) -> Generator[Event, None, dict[int, Answer]]:
    """The answers to all prompts, by task."""
    most = job.config.sampling.max_new_tokens
    restored = {i: Answer.restored(kept.found.get(f"answer {i}"), most) for i in plan.prompts}
    found = {i: said for i, said in restored.items() if said is not None}
    left = {i: prompt for i, prompt in plan.prompts.items() if i not in found}
    again, total = len(found), len(plan.prompts)
    if total:
        yield Progress(name, "answering", again, total, again)
    sampling = job.config.sampling
    sampling = replace(sampling, stop=(*sampling.stop, *plan.template.headings))
    for i, said in answer(model, left, sampling):
        kept.add(f"answer {i}", [said.text, said.tokens, said.finish_reason])
        found[i] = said
        yield Progress(name, "answering", len(found), total, again)
    return found
