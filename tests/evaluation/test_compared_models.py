"""The compared models: which is loaded, with which template, and on which data it was trained."""

import numpy as np
import pytest
import torch

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.checkpoints.save_adapter import save_adapter
from gpt2cli.config import ANSWERS, DataConfig, EvaluationConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.evaluation import engine
from gpt2cli.evaluation.compared_models import Candidate, candidates, division
from gpt2cli.evaluation.engine import Job, evaluate
from gpt2cli.evaluation.evaluation_data import read_data
from gpt2cli.model.lora import add_lora, lora_state
from gpt2cli.prompts import ALPACA
from gpt2cli.tokenizer import decode
from tests import models
from tests.data.records import many, write_json

SHAPE = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64)
CPU = ModelSpec(device="cpu", precision="fp32", offline=True)
RECORDS = {"val_fraction": 0.2, "test_fraction": 0.1, "subset": 5, "seed": 3}
TEMPLATE = {"with_input": "Q: {instruction} {input}\nA:", "without_input": "Q: {instruction}\nA:"}


def save_lora(directory, base=None):
    model, config = models.small_model(SHAPE), LoRAConfig(rank=2)
    add_lora(model, config)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_()
    save_adapter(directory, lora_state(model), config, base=base)


def test_an_adapter_is_merged_into_the_single_model_or_into_its_own_base(tmp_path):
    base = str(models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base"))
    save_lora(tmp_path / "lora", base)
    lora = str(tmp_path / "lora")
    plain, adapted = candidates([base], [lora], CPU)
    [alone] = candidates([], [lora], CPU)
    assert (adapted.spec.model, alone.spec.model) == (base, None)
    idx = [[1, 2, 3]]
    assert np.array_equal(adapted.spec.load(for_text=True)(idx), alone.spec.load(for_text=True)(idx))
    idx = [[0, 1, 2, 3, 4]]
    before, after = (candidate.spec.load(for_text=True)(idx) for candidate in (plain, alone))
    assert np.array_equal(adapted.spec.load(for_text=True)(idx), after)
    assert not np.allclose(before, after, atol=1e-3)
    assert adapted.fingerprint() == alone.fingerprint() != plain.fingerprint()
    whole = alone.fingerprint()
    models.save_hub_directory(models.small_model(SHAPE, seed=1), tmp_path / "base")
    assert alone.fingerprint() != whole


def test_the_fingerprint_covers_the_config_beside_the_weights(tmp_path):
    models.save_hub_directory(models.small_model(SHAPE), tmp_path)
    [weights] = tmp_path.glob("*.safetensors")
    [candidate] = candidates([], [str(weights)], CPU)
    before = candidate.fingerprint()
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("{", '{"layer_norm_epsilon": 0.1, ', 1))
    assert candidate.fingerprint() != before


def test_each_model_answers_prompts_in_its_own_template(tmp_path, home, monkeypatch):
    for name, template in (("plain.pt", None), ("tuned.pt", TEMPLATE)):
        save_checkpoint(models.small_model(SHAPE), tmp_path / name, template=template)
    chosen = candidates([], [str(tmp_path / name) for name in ("plain.pt", "tuned.pt")], CPU)
    assert [candidate.template.to_dict() for candidate in chosen] == [ALPACA.to_dict(), TEMPLATE]
    asked = []
    monkeypatch.setattr(engine, "answer", lambda model, prompts, sampling: asked.append((prompts, sampling.stop)) or [])
    path = write_json(tmp_path / "records.json", many(3))
    data = read_data(path, "records", None, 64, TrainConfig(), DataConfig())
    with pytest.raises(KeyError):  # nobody has answered
        list(evaluate(Job(chosen, data, EvaluationConfig(answers=1, sampling=ANSWERS), 64)))
    [(plain, plain_stop), (tuned, tuned_stop)] = asked
    assert decode(*plain.values()).endswith("### Response:\n") and "### Instruction:" in plain_stop
    assert decode(*tuned.values()).startswith("Q: What is") and decode(*tuned.values()).endswith("\nA:")
    assert "### Instruction:" not in tuned_stop and any("Q:" in stop for stop in tuned_stop)


def test_records_are_divided_as_in_training_whatever_the_template_of_the_evaluation(tmp_path):
    path, window = tmp_path / "records.json", 60
    data = {"kind": "alpaca", "source": str(path), "max_length": window, "loss_on": "all"}
    told = {"data": data, "settings": {"records": RECORDS}}
    save_checkpoint(models.small_model(SHAPE), tmp_path / "a.pt", template=TEMPLATE, provenance=told)
    [candidate] = candidates([], [str(tmp_path / "a.pt")], CPU, ALPACA)
    assert candidate.template == ALPACA
    found = division([candidate], path, 1024)
    assert found == (window, TrainConfig(max_length=window, loss_on="all"), DataConfig(**RECORDS), candidate.tuned_in)
    assert candidate.tuned_in.to_dict() == TEMPLATE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_length", float("inf")), ("max_length", "60"), ("max_length", -1), ("loss_on", ["all"])),
        *(("records", None), ("records", {"seed": 0}), ("records", RECORDS | {"more": 1})),
        *(("records", RECORDS | {"subset": 2.5}), ("records", RECORDS | {"seed": [1]})),
        ("records", RECORDS | {"val_fraction": "x"}),
    ],
)
def test_an_impossible_division_in_a_checkpoint_is_ignored(tmp_path, name, value):
    path = tmp_path / "records.json"
    told = {"kind": "alpaca", "source": str(path), "max_length": 60, "loss_on": "all"}
    settings = {"records": RECORDS}
    (settings if name == "records" else told)[name] = value
    odd = Candidate(ModelSpec(ckpt="a.pt"), trained_on=told, settings=settings)
    assert division([odd], path, 512) == (512, TrainConfig(), DataConfig(test_fraction=0), ALPACA)


def test_an_error_of_one_model_is_found_before_the_evaluation(tmp_path):
    save_checkpoint(models.small_model(SHAPE), tmp_path / "a.pt", template={"only": "this"})
    with pytest.raises(CheckpointError, match=r"a\.pt: the prompt template is damaged"):
        candidates([], [str(tmp_path / "a.pt")], CPU)
    (tmp_path / "b.pt").write_text("<!DOCTYPE html>")
    with pytest.raises(CheckpointError, match="looks like"):
        candidates([], [str(tmp_path / "b.pt")], CPU)
    with pytest.raises(UsageError, match="no directory"):
        candidates([str(tmp_path / "nowhere")], [], CPU)[0].spec.shape()
    save_lora(tmp_path / "lora")
    wide = str(models.save_hub_directory(models.small_model(GPTConfig(1, 2, 32, 64)), tmp_path / "wide"))
    with pytest.raises(CheckpointError):  # made for another base
        candidates([wide], [str(tmp_path / "lora")], CPU)[1].spec.shape()
