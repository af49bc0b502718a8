"""The weights that a run writes: the final ones, and those with the lowest validation loss."""

import resource

import pytest
import torch

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import LoRAConfig, TrainConfig
from gpt2cli.data.splits import Splits
from gpt2cli.errors import ResourceError
from gpt2cli.model.lora import add_lora, merged_state
from gpt2cli.prompts import ALPACA
from gpt2cli.training import run_checkpoints
from gpt2cli.training.engine import train
from gpt2cli.training.events import Evaluated, Finished, Saved
from gpt2cli.training.weights_writer import WeightsWriter, kept_files
from tests import models
from tests.training.records import SHAPE, dataset, job, settings_from, started


def make(run, base, lora=None, **changes):
    """A job that overfits long before its end, and the writer of its weights."""
    work = job(val=dataset(6, seed=1), epochs=25, eval_every=2, save_every=1, **changes)
    if lora:
        torch.manual_seed(0)
        add_lora(work.model, lora)
    splits = Splits(work.train, work.val, work.train, ALPACA, {"kind": "random"})
    settings = settings_from(str(base), train=work.config, lora=lora)
    return work, WeightsWriter(work.model, settings, splits, run)


def run_through(work, results):
    """Run the job. Returns the weights at each evaluation, by its loss, and the last event."""
    seen = {}
    for event in train(work):
        results.handle(event)
        if isinstance(event, Evaluated) and event.step:
            seen[event.val_loss] = {name: tensor.clone() for name, tensor in merged_state(work.model).items()}
    assert isinstance(event, Finished)
    return seen, event


def test_the_best_weights_stay_when_later_ones_are_worse(tmp_path):
    work, results = make(tmp_path, "unused")
    seen, finished = run_through(work, results)
    results.final(finished).save(tmp_path / "out.pt")
    assert finished.got_worse and finished.best_val_loss == min(seen)
    for file, loss in ((results.best, min(seen)), (tmp_path / "out.pt", finished.final_val_loss)):
        saved = torch.load(file, weights_only=True)
        assert saved["provenance"]["losses"]["val"] == loss
        assert saved["template"] == ALPACA.to_dict()
        for name, tensor in seen[loss].items():
            assert torch.equal(saved["model"][name], tensor), name


def test_the_best_adapter_stays(tmp_path):
    base = models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base")
    work, results = make(tmp_path, base, LoRAConfig(rank=2))
    seen, finished = run_through(work, results)
    results.final(finished).save(tmp_path / "out.pt")
    assert finished.got_worse
    for adapter, loss in ((results.best, min(seen)), (tmp_path / "adapter", finished.final_val_loss)):
        torch.testing.assert_close(load_plain(ckpt=adapter).state_dict(), seen[loss])
    torch.testing.assert_close(load_plain(ckpt=tmp_path / "out.pt").state_dict(), seen[finished.final_val_loss])


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("later", [-1, 3])
def test_a_resumed_run_keeps_the_best_of_all(tmp_path, lora, later):
    """Killed a step before the best evaluation, or some after it."""
    base = models.save_hub_directory(models.small_model(SHAPE), tmp_path / "base")
    for name in ("unbroken", "killed"):
        (tmp_path / name).mkdir()
    seen, _ = run_through(*make(tmp_path / "unbroken", base, lora))
    killed_after = 2 * (1 + list(seen).index(min(seen))) + later
    work, results = make(tmp_path / "killed", base, lora, checkpoints=tmp_path / "checkpoints")
    for event in train(work):
        results.handle(event)
        if isinstance(event, Saved) and event.step == killed_after:
            break
    [found] = run_checkpoints.read_newest(tmp_path / "checkpoints")
    work, results = make(tmp_path / "killed", base, lora, resume=found)
    _, finished = run_through(work, results)
    assert finished.got_worse and finished.best_val_loss == min(seen)
    weights = [load_plain(ckpt=tmp_path / name / results.best.name).state_dict() for name in ("unbroken", "killed")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_what_a_killed_run_had_half_written_goes(tmp_path):
    _, results = make(tmp_path, "unused")
    for file in kept_files(tmp_path):
        file.parent.mkdir(exist_ok=True)
        (file.parent / f".{file.name}.12345678.tmp").mkdir()
        (file.parent / f".{file.name}.12345678.tmp" / file.name).write_bytes(b"half")
    (tmp_path / ".best.pt.abcdefgh.tmp").write_bytes(b"of version 0.1")
    results.handle(started(3))
    assert not [path for path in tmp_path.rglob("*") if path.name not in ("adapter", "best-adapter")]


def test_a_full_disk_leaves_the_best_weights_before(tmp_path):
    _, results = make(tmp_path, "unused")
    better = [Evaluated(step, 0, 1 / step, True) for step in (1, 2)]
    results.handle(better[0])
    before = results.best.read_bytes()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
    try:
        with pytest.raises(ResourceError, match=r"cannot write.*the last checkpoint is intact"):
            results.handle(better[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert results.best.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["best.pt"]


def test_nothing_is_kept_where_nothing_is_to_be_saved(tmp_path):
    work, results = make(tmp_path, "unused")
    unsaved = settings_from("unused", train=TrainConfig(save_every=0))
    run_through(work, WeightsWriter(work.model, unsaved, results.splits, tmp_path))
    assert not list(tmp_path.iterdir())
