"""The evaluation engine: a generator that scores models, generates their answers and compares them.

It prints nothing. The only files that it writes are partial results, from which an interrupted run continues.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor

from gpt2cli.config import EvaluationConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.evaluation.answers import Answer, answer
from gpt2cli.evaluation.compared_models import Candidate
from gpt2cli.evaluation.comparison import Findings, compare
from gpt2cli.evaluation.evaluation_data import Instructions, Texts
from gpt2cli.evaluation.given_answers import Given
from gpt2cli.evaluation.likelihood import RecordSource, Source, Sums, TextSource, collect, portions, score
from gpt2cli.evaluation.partial_results import PartialResults
from gpt2cli.evaluation.plan import make_plan
from gpt2cli.evaluation.results import Evaluation
from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.device import TOKENS_PER_PASS
from gpt2cli.model.device_names import device_kind
from gpt2cli.progress import Note


@dataclass(frozen=True)
class Job:
    """The input of an evaluation.

    max_length  the largest number of tokens of a record: the smallest of the models' windows; None without models
    given       answers from files, to be compared with those of the models
    """

    candidates: Sequence[Candidate]
    data: Instructions | Texts
    config: EvaluationConfig
    max_length: int | None
    given: Sequence[Given] = ()


@dataclass(frozen=True)
class Advanced:
    """A model finished `done` of `total` units: tokens if the stage is `scoring`, instructions if it is `answering`.

    reused  how many of the `done` are results of an interrupted run
    """

    model: str
    stage: Literal["scoring", "answering"]
    done: int
    total: int
    reused: int = 0


Event = Advanced | Note | Evaluation


def evaluate(job: Job) -> Iterator[Event]:
    """Evaluate one model after the other, then compare them. The last event is the Evaluation.

    The iteration deletes the partial results when it continues after the last event.
    Raises DataError if no record fits the window, DivergedError for losses that are not finite, and the errors of
    loading a model.
    """
    plan = make_plan(job.candidates, job.data, job.config, job.max_length)
    yield from map(Note, plan.notes)
    found, partial_results = [], []
    for candidate, prompts, source in zip(job.candidates, plan.prompts, plan.sources, strict=True):
        findings, partial = yield from _examine(candidate, prompts, source, job)
        found.append(findings)
        partial_results.append(partial)
    found += [Findings(given.name, None, given.answers) for given in job.given]
    fitting, answered = plan.fitting, plan.answered
    yield compare(found, job.data, job.config, max_length=job.max_length, fitting=fitting, answered=answered)
    for partial in partial_results:
        partial.discard()


def _identity(job: Job, candidate: Candidate, source: RecordSource | None) -> list[Any]:
    """Everything besides the model that its results depend on. They do not depend on the number of answers."""
    digest = hashlib.sha256()
    if isinstance(job.data, Texts):
        for text in job.data.tokens:
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text.numpy().tobytes())
    else:
        digest.update(json.dumps([[asdict(task.record), task.response] for task in job.data.tasks]).encode())
    if source is not None:  # the turns of a conversation that fit also depend on the templates of the other models
        digest.update(source.fingerprint.encode())
    sampling = asdict(_sampling(job, candidate))
    return [digest.hexdigest(), candidate.template.to_dict(), job.max_length, job.config.stride, sampling]


def _sampling(job: Job, candidate: Candidate) -> SamplingConfig:
    """The job's sampling. An answer also stops where the template's next heading begins."""
    sampling = job.config.sampling
    return replace(sampling, stop=(*sampling.stop, *candidate.template.headings))


def _examine(
    candidate: Candidate, prompts: dict[int, list[int]], records: RecordSource | None, job: Job
) -> Generator[Event, None, tuple[Findings, PartialResults]]:
    """Load one model, score the data if it has references, and generate the answers."""
    model = candidate.spec.load(for_text=True)
    # the device and precision that `auto` has chosen: on another machine it may choose others
    chosen = (model.device, model.precision)
    partial = PartialResults(candidate.fingerprint(), _identity(job, candidate, records), *chosen)
    problem = partial.problem
    if problem:
        yield Note(f"{problem}: an interrupted run would start again")
    if note := model.compiling_note():
        yield Note(note)
        model.prepare(lambda _: None)
    source: Source | None = records
    if isinstance(job.data, Texts):
        window = model.config.block_size
        source = TextSource(job.data.tokens, window, check_stride(job.config.stride, window))
    table = None if source is None else (yield from _score(candidate.spec.name, model, source, partial))
    answers = yield from _answer(candidate.spec.name, model, prompts, _sampling(job, candidate), partial)
    if partial.problem != problem:
        yield Note(f"{partial.problem}: an interrupted run would start again")
    return Findings(candidate.spec.name, table, answers), partial


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
    max_tokens = TOKENS_PER_PASS[device_kind(model.device)]
    total, done, reused, parts = sum(source.lengths), 0, 0, []
    yield Advanced(name, "scoring", done, total)
    for chosen in portions(source.lengths, max_tokens):
        key = f"score {chosen.start} to {chosen.stop}"
        tokens = sum(source.lengths[i] for i in chosen)
        part = Sums.restored(partial.findings.get(key), source, chosen)
        if part is None:
            part = score(model, source, chosen, max_tokens)
            partial.add(key, part)
        else:
            reused += tokens
        parts.append(part)
        done += tokens
        yield Advanced(name, "scoring", done, total, reused)
    return collect(parts, source.units)


def _answer(
    name: str, model: Decoder, prompts: dict[int, list[int]], sampling: SamplingConfig, partial: PartialResults
) -> Generator[Event, None, dict[int, Answer]]:
    """Generate the answers, by the index of their task."""
    restored = {i: Answer.restored(partial.findings.get(f"answer {i}"), sampling.max_new_tokens) for i in prompts}
    found = {i: reply for i, reply in restored.items() if reply is not None}
    left = {i: prompt for i, prompt in prompts.items() if i not in found}
    reused, total = len(found), len(prompts)
    if total:
        yield Advanced(name, "answering", reused, total, reused)
    for i, reply in answer(model, left, sampling):
        partial.add(f"answer {i}", reply)
        found[i] = reply
        yield Advanced(name, "answering", len(found), total, reused)
    return found
