"""When a run reports: what takes at most a tenth of its time, what always comes, and that no step is changed by it."""

import itertools
import random

import pytest
import torch

from gpt2cli.config import GPTConfig
from gpt2cli.tokenizer import encode
from gpt2cli.training import rhythm as rhythms
from gpt2cli.training import run_checkpoints
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.engine import train
from gpt2cli.training.events import Evaluated, Sampled, Saved, Step
from gpt2cli.training.rhythm import KINDS, SECONDS_BETWEEN_SAVES, SHARE, Due, Rhythm
from gpt2cli.training.sample_prompts import SamplePrompt
from tests import models
from tests.training.records import dataset, events_of, job, weights_of

BY_TIME = dict.fromkeys(KINDS)
NOTHING = dict.fromkeys(KINDS, 0.0)


def reports(rhythm: Rhythm, per_step: float, costs: dict, start: float = 0.0) -> dict[str, list[int]]:
    """The steps of each kind of report in a run whose steps and reports take so many seconds."""
    found = {kind: [] for kind in KINDS}
    if rhythm.first_step == 0:
        rhythm.count("evaluate", start, 0, 0.0)
    for step in range(rhythm.first_step + 1, rhythm.total_steps + 1):
        trained = (step - rhythm.first_step) * per_step
        due = rhythm.after(step, trained)
        for kind in KINDS:
            if getattr(due, kind):
                found[kind].append(step)
                rhythm.count(kind, costs[kind], step, trained)
    return found


@pytest.mark.parametrize("total", [1, 2, 5, 9, 10, 11, 55, 56, 57, 99, 1000])
def test_free_reports_come_on_the_grid_and_the_last_comes_once(total):
    found = reports(Rhythm(BY_TIME, total_steps=total, step=0, guesses=NOTHING), 1.0, NOTHING)
    assert found["evaluate"][-1] == found["sample"][-1] == total
    assert len(found["evaluate"]) == min(10, total) and len(found["sample"]) == min(3, total)
    assert all(total - step >= total / 10 / 2 for step in found["evaluate"][:-1])


def test_a_long_run_has_all_reports():
    costs = {"evaluate": 10.0, "sample": 3.0, "save": 5.0}
    found = reports(Rhythm(BY_TIME, total_steps=3600, step=0, guesses=costs), 1.0, costs, start=10.0)
    assert found["evaluate"] == [*range(360, 3601, 360)]
    assert found["sample"] == [1200, 2400, 3600]
    assert found["save"] == [*range(300, 3600, 300)]


@pytest.mark.parametrize("seed", range(40))
def test_reports_take_at_most_a_tenth_of_the_time_but_for_those_that_always_come(seed):
    draw = random.Random(seed)
    total, per_step = draw.choice([1, 3, 8, 56, 400, 3000]), draw.uniform(0.01, 3)
    costs = {kind: draw.uniform(0, 0.06) * total * per_step for kind in KINDS}
    run = Rhythm(BY_TIME, total_steps=total, step=0, guesses=costs)
    found = reports(run, per_step, costs, start=costs["evaluate"])
    always = 2 * costs["evaluate"] + costs["sample"]
    spent = costs["evaluate"] + sum(len(steps) * costs[kind] for kind, steps in found.items())
    assert spent <= max(SHARE * total * per_step, always) + 1e-6
    assert found["evaluate"][-1] == found["sample"][-1] == total


def test_what_comes_is_spread_over_the_run():
    costs = {"evaluate": 0.02 * 1000, "sample": 0.0, "save": 0.0}
    found = reports(Rhythm(BY_TIME, total_steps=1000, step=0, guesses=NOTHING), 1.0, costs, start=costs["evaluate"])
    assert found["evaluate"] == [400, 700, 1000]


def test_a_long_run_saves_early_though_its_evaluations_are_costly():
    costs = {"evaluate": 400.0, "sample": 10.0, "save": 4.0}
    found = reports(Rhythm(BY_TIME, total_steps=20_000, step=0, guesses=costs), 1.0, costs, start=400.0)
    assert found["save"][0] == SECONDS_BETWEEN_SAVES
    assert max(b - a for a, b in itertools.pairwise([0, *found["save"], 20_000])) <= 2 * SECONDS_BETWEEN_SAVES


def test_intervals_are_exact_and_no_clock_counts():
    slow = dict.fromkeys(KINDS, 1e6)
    intervals = {"evaluate": 4, "sample": 5, "save": 0}
    found = reports(Rhythm(intervals, total_steps=11, step=0, guesses=slow), 1.0, slow)
    assert found == {"evaluate": [4, 8, 11], "sample": [5, 10, 11], "save": []}


def test_what_has_an_interval_leaves_the_time_to_the_others():
    costs = {"evaluate": 1e6, "sample": 0.01, "save": 0.0}
    found = reports(Rhythm(BY_TIME | {"evaluate": 1}, total_steps=30, step=0, guesses=costs), 1.0, costs)
    assert found["sample"] == [10, 20, 30]


def test_with_patience_evaluations_come_by_steps_alone():
    slow = dict.fromkeys(KINDS, 1e6)
    found = reports(Rhythm(BY_TIME, total_steps=20, step=0, guesses=slow, patient=True), 1.0, slow, start=1e6)
    assert found["evaluate"] == [*range(2, 21, 2)] and found["sample"] == [20]


def test_a_resumed_run_starts_its_time_anew():
    costs = {"evaluate": 1.0, "sample": 1.0, "save": 1.0}
    found = reports(Rhythm(BY_TIME, total_steps=100, step=50, guesses=costs), 1.0, costs)
    assert found["evaluate"] == [90, 100] and found["sample"] == [67, 100] and not found["save"]


def reporting(tmp_path, **more):
    shape = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=48, dropout=0.2)  # with every token of a prompt
    options = {"dropout": 0.2, "epochs": 2, "val": dataset(5, seed=1), "checkpoints": tmp_path}
    options |= {"sample_every": None, "save_every": None, "prompts": [SamplePrompt("shown", encode("read"))]}
    return job(model=models.small_model(shape), **(options | more))


def test_the_clock_changes_no_step_of_an_unbroken_or_resumed_run(tmp_path, monkeypatch):
    expected = reporting(tmp_path / "none", eval_every=0, sample_every=0, save_every=0)
    steps = [(step.step, step.loss.hex(), step.smoothed_loss.hex()) for step in events_of(expected, Step)]
    draw = random.Random(0)
    for number in range(2):
        at_random = {(kind, step): draw.random() < 0.4 for kind in KINDS for step in range(1, 7)}

        def after(self, step, trained, at_random=at_random):
            return Due(**{kind: at_random[kind, step] or kind == "save" for kind in KINDS})

        monkeypatch.setattr(Rhythm, "after", after)
        found, resume, checkpoints = [], None, tmp_path / str(number)
        for until in (draw.randint(1, 4), 6):
            run = reporting(checkpoints, resume=resume, keep_states=True)
            for event in train(run):
                if isinstance(event, Step):
                    found.append((event.step, event.loss.hex(), event.smoothed_loss.hex()))
                if isinstance(event, Saved) and event.step == until:
                    break
            [resume] = run_checkpoints.read_newest(checkpoints)
        assert found == steps
        assert all(torch.equal(weight, weights_of(run)[name]) for name, weight in weights_of(expected).items())


def test_the_first_process_decides_for_all(tmp_path):
    """The sums stand for a first process whose clock asks for a checkpoint after steps 3 and 5, and nothing else."""

    class Second(Ranks):
        step = 0

        def sum(self, *values):
            if len(values) == 4:  # what is due, and whether to stop
                assert values == (0, 0, 0, 0)
                Second.step += 1
                return [0.0, 0.0, float(Second.step in (3, 5)), 0.0]
            return list(values)

        def wait(self):
            waited.append(Second.step)

    waited: list[int] = []
    events = list(train(replace_ranks(reporting(tmp_path, max_steps=6, eval_every=1), Second(rank=1))))
    assert waited == [3, 5]
    assert not [event for event in events if isinstance(event, Saved) or (isinstance(event, Evaluated) and event.step)]


def replace_ranks(run, ranks):
    run.ranks = ranks
    return run


def test_a_short_run_ends_with_one_evaluation_samples_and_no_checkpoint(tmp_path, monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(rhythms.time, "perf_counter", lambda: float(next(seconds)))  # a step takes as long as a report
    events = list(train(reporting(tmp_path)))
    assert [event.step for event in events if isinstance(event, Evaluated)] == [0, 6]
    assert [event.step for event in events if isinstance(event, Sampled)] == [6]
    assert not [event for event in events if isinstance(event, Saved)] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("patience", [0, 2])
def test_the_last_samples_and_a_wanted_checkpoint_come_wherever_the_run_ends(tmp_path, patience):
    more = {"learning_rate": 0.3, "patience": patience, "keep_states": True}
    more |= {"eval_every": 1, "sample_every": 10_000, "save_every": 10_000, "batch_size": 24, "warmup": 0}
    events = list(train(reporting(tmp_path, **more | {"epochs": 30 if patience else 3})))
    end = events[-1].steps
    assert (events[-1].reason == "patience") == (patience > 0) and end < 30
    assert [event.step for event in events if isinstance(event, Sampled | Saved)] == [end, end]
