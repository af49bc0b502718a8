"""Making the job of a run: what a resumed run must share with the one before."""

from dataclasses import replace

import pytest
import torch

from gpt2cli.config import VOCAB_SIZE, LoRAConfig
from gpt2cli.data.splits import Splits
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.inputs import load_model
from gpt2cli.training.job import make_job
from tests import models
from tests.training.records import SHAPE as SMALL
from tests.training.records import dataset, settings_from

SHAPE = replace(SMALL, vocab_size=VOCAB_SIZE)


def lora_job(base, precision="fp32"):
    settings = settings_from(str(base), lora=LoRAConfig(rank=2), precision=precision)
    data = dataset()
    splits = Splits(data, data, data, None)
    return make_job(settings, load_model(settings, "cpu"), splits, Ranks(), torch.device("cpu"))


def test_a_base_is_the_same_whatever_it_is_computed_in(tmp_path):
    base = models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base")
    exact, rounded = lora_job(base), lora_job(base, "bf16")
    assert exact.identity["base"] == rounded.identity["base"]
    for run, dtype in ((exact, torch.float32), (rounded, torch.bfloat16)):
        layer = run.model.h[0].mlp.c_fc
        assert (layer.weight.dtype, layer.lora_A.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("name", ["wte.weight", "h.1.mlp.c_proj.weight", "h.0.attn.c_attn.bias"])
def test_a_base_with_one_other_number_is_another(tmp_path, name):
    model = models.small_model(SHAPE)
    before = lora_job(models.save_hub_directory(model, tmp_path / "base")).identity
    with torch.no_grad():
        model.get_parameter(name).flatten()[3] += 1e-6
    after = lora_job(models.save_hub_directory(model, tmp_path / "other")).identity
    assert {key for key in before if before[key] != after[key]} == {"base"}


def test_a_job_and_its_checkpoints_know_the_number_of_warm_up_steps(tmp_path):
    job = lora_job(models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base"))
    assert job.config.warmup == job.identity["warmup"] == min(10, job.total_steps // 10)
