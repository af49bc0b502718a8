"""Laws of the evaluation of conversations: the same content is the same, whatever its format."""

import csv
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import ANSWERS, DataConfig, EvaluationConfig, GPTConfig, TrainConfig
from gpt2cli.data.open_data import load_records
from gpt2cli.data.prepared import write_prepared
from gpt2cli.evaluation import engine
from gpt2cli.evaluation.compared_models import candidates
from gpt2cli.evaluation.engine import Advanced, Job, evaluate
from gpt2cli.evaluation.evaluation_data import Instructions, read_data
from gpt2cli.evaluation.results import Evaluation
from gpt2cli.exchanges import prompt_ids
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.progress import Note
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import decode
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.validation import mean_loss
from tests import models
from tests.data.records import many, write_json

SHAPE = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=256)
CONFIG = EvaluationConfig(answers=5, sampling=replace(ANSWERS, max_new_tokens=4), resamples=50)
CPU = ModelSpec(device="cpu", precision="fp32")
PLAIN = PromptTemplate("Q: {instruction}\n{input}\nA: ", "Q: {instruction}\nA: ")


def talk(i: int, turns: int) -> list[str]:
    """Questions and answers in turn."""
    return [text for k in range(turns) for text in (f"What is {i} + {k}?", f"It is {i + k}.")]


TALKS = [talk(i, 1 + i % 4) for i in range(12)]


def as_messages(texts: list[str], system: str = "") -> dict[str, Any]:
    spoken = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *spoken]}


def as_share_gpt(texts: list[str]) -> dict[str, Any]:
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]}


@pytest.fixture
def ckpt(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(engine.TOKENS_PER_PASS, "cpu", 600)
    save_checkpoint(models.small_model(SHAPE), tmp_path / "a.pt")
    return str(tmp_path / "a.pt")


def job(ckpt: str, path: Path, template: PromptTemplate | None = None, questions: bool = False) -> Job:
    data = read_data(path, "it", None, 256, TrainConfig(), DataConfig(), questions=questions)
    return Job(candidates([], [ckpt], CPU, template), data, CONFIG, 256)


def finished(job: Job) -> Evaluation:
    *_, last = evaluate(job)
    assert isinstance(last, Evaluation)
    return last


def test_the_same_conversations_in_any_format_have_the_same_results(ckpt: str, tmp_path: Path) -> None:
    open_ai = write_json(tmp_path / "messages.json", [as_messages(texts) for texts in TALKS])
    share_gpt = tmp_path / "share.jsonl"
    share_gpt.write_text("".join(json.dumps(as_share_gpt(texts)) + "\n" for texts in TALKS))
    first, second = finished(job(ckpt, open_ai)), finished(job(ckpt, share_gpt))
    assert first == second
    assert (first.records, first.turns, first.noun, first.kind) == (12, 30, "conversation", "alpaca")
    assert [record.earlier for record in first.answered] != [()] * 5


def test_conversations_of_one_turn_have_the_results_of_the_records(ckpt: str, tmp_path: Path) -> None:
    records = many(12)
    pairs = [[record["instruction"], record["output"]] for record in records]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], *pairs])
    expected = finished(job(ckpt, write_json(tmp_path / "records.json", records)))
    assert (expected.records, expected.turns, expected.noun) == (12, 12, "record")
    for path in (
        tmp_path / "pairs.csv",
        write_json(tmp_path / "messages.json", [as_messages(pair) for pair in pairs]),
        write_json(tmp_path / "prompts.json", [{"prompt": asked, "completion": said} for asked, said in pairs]),
        write_json(
            tmp_path / "chosen.json", [{"prompt": asked, "chosen": said, "rejected": "No."} for asked, said in pairs]
        ),
    ):
        assert finished(job(ckpt, path)) == expected


@torch.no_grad()
def test_the_losses_are_those_of_all_answers_and_the_last_question_is_answered(ckpt: str, tmp_path: Path) -> None:
    made = job(ckpt, write_json(tmp_path / "messages.json", [as_messages(texts, "Be exact.") for texts in TALKS]))
    assert isinstance(made.data, Instructions)
    model = models.small_model(SHAPE)
    losses, template = [], ALPACA.with_system("Be exact.")
    for task in made.data.tasks:
        ids = prompt_ids(template, task.record.earlier, task.record) + task.response
        logits = model(torch.tensor([ids[:-1]]))[0]
        of_token = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        for i in range(len(task.record.exchanges)):
            *before, last = task.record.exchanges[: i + 1]
            start = len(prompt_ids(template, before, last))
            end = len(prompt_ids(template, [*before, last], last)) - len(prompt_ids(template, (), last))
            losses += of_token[start - 1 : end - 1].tolist()
    evaluation = finished(made)
    [result] = evaluation.models
    assert result.tokens == len(losses)
    assert result.figures["loss"].value == pytest.approx(sum(losses) / len(losses), abs=1e-6)
    for record in evaluation.answered:
        i = next(i for i, task in enumerate(made.data.tasks) if task.record.instruction == record.instruction)
        asked = made.data.tasks[i].record
        assert (record.earlier, record.system, record.reference) == (asked.earlier, "Be exact.", asked.output)
        prompt = prompt_ids(template, asked.earlier, asked)
        said = [token for _, token in generate_tokens(model, [prompt], CONFIG.sampling, [i])]
        assert decode(said).strip().startswith(record.answers[0].text)


@pytest.mark.parametrize("turns", [3, 12])
@pytest.mark.parametrize("system", ["", "Be exact."])
def test_the_loss_is_the_validation_loss_of_training(ckpt: str, tmp_path: Path, turns: int, system: str) -> None:
    talks = [as_messages(talk(i, 1 + i % turns), system) for i in range(24)]
    path = write_json(tmp_path / "messages.json", talks)
    splits = load_records(path, 256, "response", DataConfig(0.5, 0))
    made = read_data(path, "it", "val", 256, TrainConfig(), DataConfig(0.5, 0))
    of_val = finished(Job(candidates([], [ckpt], CPU), made, CONFIG, 256)).models[0]
    whole = load_records(path, 256, "response", DataConfig(0, 0)).train
    for result, data in ((of_val, splits.val), (finished(job(ckpt, path)).models[0], whole)):
        loss = mean_loss(models.small_model(SHAPE), data, 1000, nullcontext(), Ranks())
        assert result.tokens == data.n_targets
        assert result.figures["loss"].value == pytest.approx(loss, rel=1e-6)


def test_prepared_conversations_have_the_results_of_the_file(ckpt: str, tmp_path: Path) -> None:
    talks = [as_messages(talk(i, 1 + i % 9), "Be exact." if i % 2 else "") for i in range(12)]
    path = write_json(tmp_path / "messages.json", talks)
    write_prepared(load_records(path, 256, "response", DataConfig(0, 0)), tmp_path / "made")
    of_file = finished(job(ckpt, path))
    data = read_data(tmp_path / "made", "it", "train", 256, TrainConfig(), DataConfig())
    of_prepared = finished(Job(candidates([], [ckpt], CPU), data, CONFIG, 256))
    assert of_prepared.models == of_file.models and of_prepared.turns < of_file.turns  # it holds the turns that fit
    answers = [[record.answers for record in of.answered] for of in (of_file, of_prepared)]
    assert answers[0] == answers[1]


def test_a_trailing_question_is_answered_if_questions_are_asked_for(ckpt: str, tmp_path: Path) -> None:
    open_talks = [[*texts, f"And {i}?"] for i, texts in enumerate(TALKS)]
    whole = write_json(tmp_path / "whole.json", [as_messages(texts) for texts in TALKS])
    path = write_json(tmp_path / "open.json", [as_messages(texts) for texts in open_talks])
    scored = job(ckpt, path)
    assert finished(scored) == finished(job(ckpt, whole))
    assert "--questions answers the last question of each conversation, without scores" in scored.data.notes
    asked = finished(job(ckpt, path, questions=True))
    assert (asked.kind, asked.records, asked.turns, asked.noun) == ("questions", 12, 42, "conversation")
    assert all(record.instruction.startswith("And ") and record.earlier for record in asked.answered)
    again = finished(job(ckpt, whole, questions=True))
    assert [record.answers for record in again.answered] == [
        record.answers for record in finished(job(ckpt, whole)).answered
    ]
    assert all(record.instruction.startswith("What ") and record.reference is None for record in again.answered)


def test_conversations_too_long_for_the_window_are_shortened_alike_for_all_models(ckpt: str, tmp_path: Path) -> None:
    path = write_json(tmp_path / "long.json", [as_messages(talk(i, 9)) for i in range(3)])
    alone = finished(job(ckpt, path, PLAIN))
    made = job(ckpt, path)
    both = replace(made, candidates=[*made.candidates, *job(ckpt, path, PLAIN).candidates])
    *events, evaluation = evaluate(both)
    assert Note("shortened 3 of 3 conversations to the last turns, which fit into the window of 256 tokens") in events
    assert isinstance(evaluation, Evaluation)
    tokens = [model.tokens for model in evaluation.models]
    assert tokens[0] == tokens[1] < alone.models[0].tokens
    assert (evaluation.turns, evaluation.skipped, len(evaluation.answered[0].earlier)) == (27, 0, 8)


def test_a_template_without_a_preamble_leaves_system_texts_out_and_says_so(ckpt: str, tmp_path: Path) -> None:
    with_system = write_json(tmp_path / "system.json", [as_messages(texts, "Be exact.") for texts in TALKS])
    without = write_json(tmp_path / "plain.json", [as_messages(texts) for texts in TALKS])
    *events, evaluation = evaluate(job(ckpt, with_system, PLAIN))
    [note] = [event.text for event in events if isinstance(event, Note)]
    assert (
        note
        == f"{ckpt}: left out the system texts of 12 conversations, as the prompt template has no preamble to replace"
    )
    assert isinstance(evaluation, Evaluation)
    assert evaluation.models == finished(job(ckpt, without, PLAIN)).models
    assert finished(job(ckpt, with_system)).models != finished(job(ckpt, without)).models


@pytest.mark.parametrize("change", ["an earlier question", "an earlier answer", "the system text", "nothing"])
def test_results_are_reused_only_for_the_same_conversations(ckpt: str, tmp_path: Path, change: str) -> None:
    path = write_json(tmp_path / "messages.json", [as_messages(texts, "Be exact.") for texts in TALKS])
    broken = evaluate(job(ckpt, path))
    for event in broken:
        if isinstance(event, Advanced) and event.stage == "answering" and event.done == event.total:
            break
    broken.close()
    changed = [[*texts] for texts in TALKS]
    if change.startswith("an earlier"):
        changed[-1][0 if change.endswith("question") else 1] += "!"
    system = "Be brief." if change == "the system text" else "Be exact."
    write_json(path, [as_messages(texts, system) for texts in changed])
    reused = any(event.reused for event in evaluate(job(ckpt, path)) if isinstance(event, Advanced))
    assert reused == (change == "nothing")


def test_a_model_with_another_window_of_templates_does_not_reuse_results(ckpt: str, tmp_path: Path) -> None:
    path = write_json(tmp_path / "long.json", [as_messages(talk(i, 9)) for i in range(3)])
    plain = job(ckpt, path, PLAIN)
    both = replace(plain, candidates=[*plain.candidates, *job(ckpt, path).candidates])
    broken = evaluate(plain)
    for event in broken:
        if isinstance(event, Advanced) and event.stage == "scoring" and event.done == event.total:
            break
    broken.close()
    again = [event for event in evaluate(both) if isinstance(event, Advanced)]
    assert not any(event.reused for event in again)  # the other model's prompts leave room for fewer turns
