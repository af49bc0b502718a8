"""Laws of a whole evaluation: continued equals unbroken, a model equals itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import ANSWERS, DataConfig, EvaluationConfig, GPTConfig, TrainConfig
from gpt2cli.errors import DataError
from gpt2cli.evaluation import engine
from gpt2cli.evaluation.compared_models import candidates
from gpt2cli.evaluation.engine import Advanced, Job, evaluate
from gpt2cli.evaluation.evaluation_data import Instructions, read_data
from gpt2cli.evaluation.partial_results import PartialResults
from gpt2cli.evaluation.results import Evaluation
from gpt2cli.progress import Note
from gpt2cli.prompts import PromptTemplate
from tests import models
from tests.data.records import many, write_json

SHAPE = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64)
CONFIG = EvaluationConfig(answers=5, sampling=replace(ANSWERS, max_new_tokens=4), resamples=50)
CPU = ModelSpec(device="cpu", precision="fp32")


@pytest.fixture
def job(tmp_path, home, monkeypatch) -> Job:
    """Two models, and records in several portions."""
    monkeypatch.setitem(engine.TOKENS_PER_PASS, "cpu", 100)
    files = []
    for seed in (0, 1):
        files.append(str(tmp_path / f"{seed}.pt"))
        save_checkpoint(models.small_model(SHAPE, seed), tmp_path / f"{seed}.pt")
    path = write_json(tmp_path / "records.json", many(30))
    data = read_data(path, "records.json", None, 64, TrainConfig(), DataConfig())
    return Job(candidates([], files, CPU), data, CONFIG, 64)


def finished(job: Job) -> Evaluation:
    *_, last = evaluate(job)
    assert isinstance(last, Evaluation)
    return last


@pytest.mark.parametrize("events", [1, 6, 13, 18])
def test_an_interrupted_run_continues_where_it_stopped(job, home, events, monkeypatch):
    whole = finished(job)
    assert list((home / "evaluations").iterdir()) == []  # nothing is left of a run that has ended
    broken = evaluate(job)
    done = [next(broken) for _ in range(events)]
    broken.close()
    steps = {(event.model, event.stage): event.done for event in done if isinstance(event, Advanced)}
    again = list(evaluate(job))
    for key, before in steps.items():
        first = next(event for event in again if isinstance(event, Advanced) and (event.model, event.stage) == key)
        reused = max(
            event.reused for event in again if isinstance(event, Advanced) and (event.model, event.stage) == key
        )
        assert reused == before and first.done in (0, before)
    assert again[-1] == whole
    assert list((home / "evaluations").iterdir()) == []


def test_results_of_a_changed_checkpoint_are_not_reused(job, tmp_path, home):
    broken = evaluate(job)
    for event in broken:
        if isinstance(event, Advanced) and event.stage == "answering" and event.done == event.total:
            break
    broken.close()
    save_checkpoint(models.small_model(SHAPE, 7), tmp_path / "0.pt")
    again = [event for event in evaluate(job) if isinstance(event, Advanced)]
    assert all(event.reused == 0 for event in again if event.model.endswith("0.pt"))


def interrupted(job: Job) -> None:
    """Evaluate only the first model."""
    broken = evaluate(job)
    for event in broken:
        if isinstance(event, Advanced) and event.stage == "answering" and event.done == event.total:
            break
    broken.close()


def test_results_are_reused_only_with_the_same_device_and_precision(job, monkeypatch):
    candidate = job.candidates[0]

    def on(device, precision):
        spec = replace(candidate.spec, device=device, precision=precision)
        return replace(job, candidates=[replace(candidate, spec=spec)])

    interrupted(on("auto", "auto"))
    at_other_precision = [event for event in evaluate(job) if isinstance(event, Advanced)]
    assert all(event.reused == 0 for event in at_other_precision)
    chosen = candidate.spec.load(for_text=True).precision
    interrupted(on("auto", chosen))
    assert any(event.reused for event in evaluate(on("cpu", chosen)) if isinstance(event, Advanced))


@pytest.mark.parametrize("tokens", [37, 260, 10_000])
def test_partial_results_of_other_portions_are_computed_again(job, monkeypatch, tokens):
    whole = finished(job)
    interrupted(job)
    monkeypatch.setitem(engine.TOKENS_PER_PASS, "cpu", tokens)
    again = finished(job)
    assert [model.tokens for model in again.models] == [model.tokens for model in whole.models]
    for model, before in zip(again.models, whole.models, strict=True):
        assert model.figures["loss"].value == pytest.approx(before.figures["loss"].value)


@pytest.mark.parametrize("odd", [None, [], [[0], [float("nan")], [0], [1]], ["x", "1", "eos"], {"a": 1}, "text"])
def test_impossible_partial_results_are_computed_again(job, monkeypatch, odd):
    whole = finished(job)
    interrupted(job)
    read = PartialResults._read

    def read_odd(self: PartialResults) -> None:
        read(self)
        self.findings = dict.fromkeys(self.findings, odd)

    monkeypatch.setattr(PartialResults, "_read", read_odd)
    events = list(evaluate(job))
    assert events[-1] == whole and all(event.reused == 0 for event in events if isinstance(event, Advanced))


def test_a_note_says_before_the_work_that_no_results_can_be_saved(job, home):
    home.write_text("a file")
    first, *others = evaluate(job)
    assert isinstance(first, Note) and first.text.endswith(": an interrupted run would start again")
    assert isinstance(others[-1], Evaluation)


def test_a_model_equals_itself_and_an_answer_does_not_depend_on_the_number_of_answers(job):
    same = replace(job, candidates=[job.candidates[0], job.candidates[0]])
    evaluation = finished(same)
    first, second = evaluation.models
    assert first.figures == second.figures and first.differences == {}
    assert all((e.value, e.low, e.high) == (0, 0, 0) for e in second.differences.values())
    more = finished(replace(same, config=replace(CONFIG, answers=30)))
    answers = {record.instruction: record.answers for record in more.answered}
    assert len(answers) == 30
    assert all(answers[record.instruction] == record.answers for record in evaluation.answered)


def asked(job: Job) -> Job:
    assert isinstance(job.data, Instructions)
    return replace(job, data=job.data.without_references())


def test_questions_are_answered_as_records_are_and_nothing_is_scored(job, home):
    scored, evaluation = finished(job), finished(asked(job))
    assert (evaluation.kind, evaluation.records, evaluation.reference_tokens) == ("questions", 30, None)
    assert [record.answers for record in evaluation.answered] == [record.answers for record in scored.answered]
    assert all(record.reference is None and record.rouge_l == [] for record in evaluation.answered)
    assert all(set(model.figures) == {"answer_tokens", "ended"} for model in evaluation.models)
    assert all(event.stage == "answering" for event in evaluate(asked(job)) if isinstance(event, Advanced))
    interrupted(asked(job))
    again = list(evaluate(asked(job)))
    assert again[-1] == evaluation and any(event.reused for event in again if isinstance(event, Advanced))
    assert list((home / "evaluations").iterdir()) == []


def test_each_model_is_asked_in_its_own_template(job):
    first, second = job.candidates
    plain = PromptTemplate("Q: {instruction}\n{input}\nA:", "Q: {instruction}\nA:")
    own = finished(replace(asked(job), candidates=[first, replace(second, template=plain)]))
    both = finished(replace(asked(job), candidates=[replace(each, template=plain) for each in job.candidates]))
    assert [record.answers[0] for record in own.answered] != [record.answers[0] for record in both.answered]
    assert [record.answers[1] for record in own.answered] == [record.answers[1] for record in both.answered]


def test_records_that_do_not_fit_the_smallest_window_are_left_out_for_all_models(job, tmp_path):
    short = tmp_path / "short.pt"
    save_checkpoint(models.small_model(replace(SHAPE, block_size=46), 3), short)
    records = [*many(3), {"instruction": "word " * 30, "output": "it does not fit"}]
    path = write_json(tmp_path / "more.json", records)
    data = read_data(path, "more.json", None, 46, TrainConfig(), DataConfig())
    both = Job(candidates([], [job.candidates[0].spec.ckpt, str(short)], CPU), data, CONFIG, 46)
    evaluation = finished(both)
    assert (evaluation.records, evaluation.skipped, len(evaluation.answered)) == (3, 1, 3)
    assert evaluation.models[0].tokens == evaluation.models[1].tokens
    with pytest.raises(DataError, match="no record is left"):
        finished(replace(both, max_length=8))


def test_numbers_too_large_are_null_in_json(job):
    model = models.small_model(SHAPE)
    with torch.no_grad():
        model.ln_f.weight.mul_(1e6)
    save_checkpoint(model, Path(job.candidates[1].spec.ckpt))
    told = json.loads(json.dumps(finished(job).as_dict(), allow_nan=False))
    assert told["models"][1]["perplexity"] is None and told["models"][1]["loss"] > 700
