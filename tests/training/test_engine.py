"""The laws of the engine: what must be equal is equal, and failures lose no checkpoint."""

import itertools
import math
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpt2cli.config import GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.data.batches import kinds_of, make_rows, records_of_step, steps_per_epoch
from gpt2cli.data.dataset import from_sequences
from gpt2cli.errors import CheckpointError, DataError, DivergedError, ResourceError
from gpt2cli.model.lora import add_lora
from gpt2cli.tokenizer import encode
from gpt2cli.training import run_checkpoints
from gpt2cli.training.engine import train
from gpt2cli.training.events import SMOOTHED, Evaluated, Finished, Sampled, Saved, Started, Step, smoothed_steps
from gpt2cli.training.optim import Optimizer, learning_rate
from gpt2cli.training.sample_prompts import SamplePrompt
from gpt2cli.training.state_json import Counters, StateFile, read_state_file
from tests import models
from tests.training.records import alike, dataset, events_of, job, weights_of


def losses_of(run):
    return [bits_of(step) for step in events_of(run, Step)]


def bits_of(step):
    return step.loss.hex(), step.smoothed_loss.hex()


@pytest.mark.parametrize("n_kinds", [1, 2, 22])
def test_every_epoch_sees_every_record_once_in_an_order_of_its_own(n_kinds):
    def epoch_of(number, seed=3):
        kinds = torch.arange(22) % n_kinds
        return [r for step in range(4) for r in records_of_step(kinds, 6, 4 * number + step, seed)]

    epochs = [epoch_of(number) for number in range(3)]
    assert all(sorted(epoch) == list(range(22)) for epoch in epochs)
    if n_kinds < 22:
        assert epochs[0] != epochs[1] != epochs[2]
        assert epochs[0] != epoch_of(0, seed=4)
    assert steps_per_epoch(22, 6) == 4


def test_steps_are_of_records_that_begin_alike():
    kinds = kinds_of(alike(40))
    assert kinds.tolist() == [1 + (i + kinds[0] + 1) % 2 for i in range(40)] + [0]
    mixed = 0
    for step in range(10):
        mixed += len(kinds[records_of_step(kinds, 4, step, seed=0)].unique()) > 1
    assert mixed <= 2  # where one kind goes over into the next


def test_rows_hold_every_record_once_and_no_padding():
    data = dataset(20)
    rows = make_rows(data, range(20), 50, torch.device("cpu"))
    assert sum(row.idx.shape[1] for row in rows) == data.n_tokens - 20
    assert sum(len(row.targets) for row in rows) == data.n_targets
    assert all(row.idx.shape[1] <= 50 for row in rows)


def test_training_lowers_the_loss():
    steps = events_of(job(epochs=40, schedule="constant"), Step)
    assert steps[-1].loss < 0.5 * steps[0].loss


def test_the_smoothed_loss_is_the_mean_over_the_targets_of_the_last_steps():
    steps = events_of(job(epochs=5, batch_size=3), Step)
    window = smoothed_steps(len(steps))
    assert window == 4 and len({step.targets for step in steps}) > 1
    for i, step in enumerate(steps):
        last = steps[max(0, i + 1 - window) : i + 1]
        mean = sum(each.loss * each.targets for each in last) / sum(each.targets for each in last)
        assert step.smoothed_loss == pytest.approx(mean)


def test_the_smoothed_loss_holds_at_most_a_tenth_of_the_run():
    assert [smoothed_steps(n) for n in (1, 8, 19, 20, 56, 199, 200, 10_000)] == [1, 1, 1, 2, 5, 19, SMOOTHED, SMOOTHED]


@pytest.mark.parametrize(("batch_size", "grad_accum"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_accumulation_equals_one_batch(batch_size, grad_accum):
    whole, parts = job(batch_size=8), job(batch_size=batch_size, grad_accum=grad_accum)
    expected, found = events_of(whole, Step), events_of(parts, Step)
    assert [s.loss for s in found] == pytest.approx([s.loss for s in expected], rel=1e-5)
    assert [s.grad_norm for s in found] == pytest.approx([s.grad_norm for s in expected], rel=1e-3)
    for name, weight in weights_of(whole).items():
        other = weights_of(parts)[name]
        if name.endswith("c_attn.bias"):  # attention does not depend on the keys' bias: Adam follows rounding there
            weight, other = (torch.cat([bias.chunk(3)[0], bias.chunk(3)[2]]) for bias in (weight, other))
        torch.testing.assert_close(weight, other, atol=1e-3, rtol=0, msg=name)


def test_the_last_partial_window_counts():
    steps = events_of(job(train=dataset(10), batch_size=4, grad_accum=2, epochs=1), Step)
    assert [step.tokens for step in steps] == [
        int(dataset(10).lengths[records_of_step(kinds_of(dataset(10)), 8, i, 0)].sum()) for i in (0, 1)
    ]
    assert sum(step.tokens for step in steps) == dataset(10).n_tokens


def test_data_smaller_than_one_batch_is_still_one_step():
    assert len(events_of(job(train=dataset(3), batch_size=8, epochs=1), Step)) == 1


def test_no_data_is_an_error():
    with pytest.raises(DataError, match="no record is left"):
        list(train(job(train=from_sequences([], []))))


def test_dropout_follows_from_the_seed_and_leaves_the_random_state_alone():
    run = job(dropout=0.2)
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first = losses_of(run)
    assert torch.equal(torch.rand(1), expected)
    assert losses_of(job(dropout=0.2)) == first
    assert losses_of(job(dropout=0.2, seed=1)) != first
    assert losses_of(job(dropout=0.0)) != first


def test_evaluating_sampling_and_saving_change_nothing(tmp_path):
    def make(**more):
        shape = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=48, dropout=0.2)  # with every token of a prompt
        return job(
            dropout=0.2, model=models.small_model(shape), prompts=[SamplePrompt("shown", encode("read"))], **more
        )

    plain = losses_of(make())
    busy = make(val=dataset(5, seed=1), eval_every=1, sample_every=2, save_every=1, checkpoints=tmp_path)
    events = list(train(busy))
    assert [bits_of(event) for event in events if isinstance(event, Step)] == plain
    assert [event.step for event in events if isinstance(event, Sampled)] == [2, 4, 6]
    assert [event.step for event in events if isinstance(event, Evaluated)] == list(range(7))
    assert not busy.model.training


@pytest.mark.parametrize(("lora", "optimizer"), [(False, "adamw"), (True, "adamw"), (False, "muon")])
def test_a_resumed_run_is_bit_for_bit_the_unbroken_one(tmp_path, lora, optimizer):
    def make(checkpoints=None, resume=None):
        more = {"val": dataset(5, seed=1), "checkpoints": checkpoints, "resume": resume, "optimizer": optimizer}
        run = job(dropout=0.2, eval_every=2, save_every=1, epochs=4, **more)
        torch.manual_seed(4)
        if lora:
            add_lora(run.model, LoRAConfig(rank=2))
        return run

    unbroken = make()
    expected = losses_of(unbroken)
    for killed_after in random.Random(0).sample(range(1, len(expected)), 3):
        checkpoints, first = tmp_path / str(killed_after), []
        for event in train(make(checkpoints)):
            if isinstance(event, Step):
                first.append(bits_of(event))
            if isinstance(event, Saved) and event.step == killed_after:
                break
        [found] = run_checkpoints.read_newest(checkpoints)
        resumed = make(checkpoints, found)
        assert first + losses_of(resumed) == expected
        for name, weight in weights_of(unbroken).items():
            assert torch.equal(weight, weights_of(resumed)[name]), name


def test_a_finished_run_has_nothing_to_do(tmp_path):
    events_of(job(save_every=1, keep_states=True, checkpoints=tmp_path), Step)
    [found] = run_checkpoints.read_newest(tmp_path)
    events = list(train(job(save_every=1, checkpoints=tmp_path, resume=found)))
    assert [type(event) for event in events] == [Started, Finished]


def test_a_checkpoint_from_before_the_first_step_is_the_beginning(tmp_path):
    fresh = job()
    saved = run_checkpoints.save_state(tmp_path, Optimizer(fresh.model, fresh.config), Counters(), {})
    assert losses_of(job(resume=run_checkpoints.read_state(saved))) == losses_of(fresh)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    events_of(job(save_every=1, checkpoints=tmp_path), Step)
    newest, before = run_checkpoints.checkpoints(tmp_path)
    weights = newest / run_checkpoints.WEIGHTS
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    error, found = run_checkpoints.read_newest(tmp_path)
    assert "is damaged" in str(error)
    assert found.path == before
    with pytest.raises(CheckpointError, match="is damaged"):
        run_checkpoints.read_state(newest)


@pytest.mark.parametrize("file", [run_checkpoints.WEIGHTS, run_checkpoints.OPTIMIZER, run_checkpoints.STATE])
def test_a_pickle_in_a_checkpoint_is_refused(tmp_path, file):
    import pickle

    events_of(job(save_every=1, checkpoints=tmp_path), Step)
    newest = run_checkpoints.checkpoints(tmp_path)[0]
    (newest / file).write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError):
        run_checkpoints.read_state(newest)


def test_a_checkpoint_in_8_bit_floats_is_refused(tmp_path):
    events_of(job(save_every=1, checkpoints=tmp_path), Step)
    newest = run_checkpoints.checkpoints(tmp_path)[0]
    weights, state = newest / run_checkpoints.WEIGHTS, newest / run_checkpoints.STATE
    save_file({"wte.weight": torch.zeros(1, dtype=torch.float8_e5m2)}, weights)
    read = read_state_file(state)
    files = read.files | {weights.name: run_checkpoints._info(weights)}
    state.write_text(StateFile(files, read.counters, read.identity).as_text(), encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        run_checkpoints.read_state(newest)


def test_resuming_another_run_lists_the_differences(tmp_path):
    events_of(job(save_every=1, checkpoints=tmp_path, identity={"lora_rank": 8, "data": "abc", "seed": 0}), Step)
    [found] = run_checkpoints.read_newest(tmp_path)
    other = job(resume=found, identity={"lora_rank": 16, "data": "xyz", "seed": 0})
    with pytest.raises(CheckpointError, match="lora_rank was 8, is 16; the data has changed"):
        list(train(other))


def test_only_the_newest_checkpoints_stay(tmp_path):
    saved = events_of(job(save_every=1, checkpoints=tmp_path), Saved)
    assert len(saved) > run_checkpoints.KEEP
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        event.path.name for event in saved[-run_checkpoints.KEEP :]
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to end at a chosen moment")
def test_killed_anywhere_in_a_save_one_whole_checkpoint_remains(tmp_path, monkeypatch):
    run = job(save_every=1, checkpoints=tmp_path)
    optimizer = Optimizer(run.model, run.config)
    for step in range(1, run_checkpoints.KEEP + 1):
        run_checkpoints.save_state(tmp_path, optimizer, Counters(step), {})
    for killed_at in itertools.count(1):
        child = os.fork()
        if child == 0:  # nothing is unwound or cleared away, as after kill -9
            left = itertools.count(killed_at, -1)

            def ending_after(function, left=left):
                def call(*args, **kwargs):
                    result = function(*args, **kwargs)
                    if next(left) == 1:
                        os._exit(9)
                    return result

                return call

            for module, name in (
                (run_checkpoints, "save_file"),
                (run_checkpoints, "sync_file"),
                (run_checkpoints, "sync_directory"),
                (os, "unlink"),
            ):
                monkeypatch.setattr(module, name, ending_after(getattr(module, name)))
            for name in ("mkdir", "write_text", "rename"):
                monkeypatch.setattr(Path, name, ending_after(getattr(Path, name)))
            run_checkpoints.save_state(tmp_path, optimizer, Counters(run_checkpoints.KEEP + 1), {})
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert list(run_checkpoints.read_newest(tmp_path))[-1].counters.step in (
            run_checkpoints.KEEP,
            run_checkpoints.KEEP + 1,
        )
        if code == 0:
            break
        assert code == 9
    assert killed_at > 9  # the writes, each made durable, and the renaming
    assert len(run_checkpoints.checkpoints(tmp_path)) == run_checkpoints.KEEP


@pytest.mark.parametrize("spoil", ["weight", "gradient"])
def test_numbers_that_are_not_finite_end_it_before_the_step(tmp_path, spoil):
    run = job(save_every=1, checkpoints=tmp_path)
    events = train(run)
    step = next(event for event in events if isinstance(event, Saved)).step
    if spoil == "weight":
        with torch.no_grad():
            run.model.ln_f.bias[0] = math.nan
    else:
        run.model.ln_f.bias.register_hook(lambda gradient: gradient * math.inf)
    before = weights_of(run)
    with pytest.raises(DivergedError, match=rf"at step {step + 1} \(training records \d+"):
        next(events)
    for name, weight in weights_of(run).items():
        torch.testing.assert_close(weight, before[name], equal_nan=True, atol=0, rtol=0)
    assert next(run_checkpoints.read_newest(tmp_path)).counters.step == step


def spoil_after(run, step, value):
    """Put a value among the weights by the optimizer's step of this number."""
    whole, taken = Optimizer.step, itertools.count(1)

    def step_and_spoil(self, *args):
        whole(self, *args)
        if next(taken) == step:
            with torch.no_grad():
                run.model.ln_f.weight[0] = value

    return step_and_spoil


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_a_validation_loss_that_is_not_finite_is_neither_told_nor_saved(tmp_path, monkeypatch, value):
    run = job(val=dataset(5, seed=1), eval_every=2, save_every=1, checkpoints=tmp_path)
    monkeypatch.setattr(Optimizer, "step", spoil_after(run, 2, value))
    events = []
    with pytest.raises(DivergedError, match=r"validation loss (nan|inf) after step 2.*step-00000001$"):
        for event in train(run):
            events.append(event)  # noqa: PERF402 (what came before the error counts)
    assert [event.step for event in events if isinstance(event, Evaluated)] == [0]
    assert [event.step for event in events if isinstance(event, Saved)] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_model_that_cannot_be_trained_on_the_data_is_told_before_the_first_step():
    run = job(val=dataset(5, seed=1))
    with torch.no_grad():
        run.model.ln_f.weight[0] = math.inf
    with pytest.raises(DivergedError, match="before the first step: start from another model"):
        list(train(run))


@pytest.mark.parametrize("save_every", [0, 1, 2])
def test_weights_that_are_not_finite_are_neither_saved_nor_the_end(tmp_path, monkeypatch, save_every):
    run = job(save_every=save_every, checkpoints=tmp_path, max_steps=2)
    monkeypatch.setattr(Optimizer, "step", spoil_after(run, 2, math.nan))
    with pytest.raises(DivergedError, match="weights after step 2 are not finite"):
        list(train(run))
    assert [path.name for path in run_checkpoints.checkpoints(tmp_path)] == (
        ["step-00000001"] if save_every == 1 else []
    )


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    run = job(save_every=1, checkpoints=tmp_path)
    events = train(run)
    first = next(event for event in events if isinstance(event, Saved))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_checkpoints, "save_file", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        list(events)
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]
    assert next(run_checkpoints.read_newest(tmp_path)).counters.step == 1


def test_an_asked_for_end_saves_first(tmp_path):
    run = job(checkpoints=tmp_path, save_every=1000)
    asked = iter([False, False, True])
    run.should_stop = lambda: next(asked)
    events = list(train(run))
    assert isinstance(events[-2], Saved)
    assert (events[-1].reason, events[-1].steps) == ("interrupted", 3)
    assert next(run_checkpoints.read_newest(tmp_path)).counters.step == 3


def test_patience_ends_a_run_that_gets_no_better():
    run = job(epochs=50, learning_rate=3e-2, val=dataset(6, seed=5), eval_every=1, patience=3)
    events = list(train(run))
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert events[-1].reason == "patience"
    assert [event.best for event in evaluations[-4:]] == [True, False, False, False]
    assert events[-1].best_val_loss == min(event.val_loss for event in evaluations)


def test_a_run_that_lost_patience_has_nothing_to_do(tmp_path):
    options = {"epochs": 50, "learning_rate": 3e-2, "val": dataset(6, seed=5), "eval_every": 1, "patience": 2}
    events_of(job(**options, save_every=1, keep_states=True, checkpoints=tmp_path), Step)
    [found] = run_checkpoints.read_newest(tmp_path)
    events = list(train(job(**options, resume=found)))
    assert [type(event) for event in events] == [Started, Finished]
    assert events[-1].reason == "patience"


def test_an_end_asked_for_in_the_last_step_changes_nothing():
    options = {"val": dataset(6, seed=5), "eval_every": 4}
    expected = events_of(job(**options), Evaluated)
    asked = job(**options)
    asked.should_stop = iter([False] * 5 + [True]).__next__
    events = list(train(asked))
    assert [event for event in events if isinstance(event, Evaluated)] == expected
    assert events[-1].reason == "done"


def test_samples_are_answers_to_the_prompts():
    shape = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=48)
    run = job(sample_every=3, model=models.small_model(shape), prompts=[SamplePrompt("shown", encode("read"))])
    samples = events_of(run, Sampled)
    assert [sample.step for sample in samples] == [3, 6]
    assert samples[0].answers[0].prompt == "shown"


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedules_count_optimizer_steps(schedule):
    config = TrainConfig(learning_rate=1.0, schedule=schedule, warmup=4)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    if schedule == "constant":
        assert set(rates[4:]) == {1.0}
    else:
        assert rates[4:] == sorted(rates[4:], reverse=True)
        assert 0 < rates[-1] < 0.1
        assert rates[12] == pytest.approx(0.5)


def test_steps_in_the_run_have_the_schedules_rate():
    steps = events_of(job(warmup=2), Step)
    assert [step.lr for step in steps] == [
        learning_rate(i, len(steps), job(warmup=2).config) for i in range(len(steps))
    ]
