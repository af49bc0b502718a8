"""The plan of a run: laws of its figures, and its agreement with the run."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.data.batches import Batch
from gpt2cli.data.open_data import load_data
from gpt2cli.model.gpt import GPT
from gpt2cli.model.lora import add_lora
from gpt2cli.model.packed_row import PackedRow
from gpt2cli.training import sizes
from gpt2cli.training.bf16_linear import make_lean
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.estimate import Plan, make_plan
from gpt2cli.training.inputs import shape_only
from gpt2cli.training.job import make_job, round_frozen
from gpt2cli.training.loss import SequenceLoss
from gpt2cli.training.optim import Optimizer, learning_rate
from gpt2cli.training.plan_warnings import warnings_of
from gpt2cli.training.run_checkpoints import Resumable
from gpt2cli.training.settings import Settings
from gpt2cli.training.sizes import Disk, free_disk, free_memory, memory_needed
from gpt2cli.training.state_json import Counters
from tests.training.records import job as small_job
from tests.training.records import settings_from, write_records

CPU = torch.device("cpu")
MEDIUM = GPTConfig(24, 16, 1024)
PLAN = Plan(
    device="cpu",
    noun="record",
    examples=27,
    step=0,
    steps=80,
    epochs=2,
    warmup=10,
    epoch_tokens=2754,
    tokens=5508,
    seconds=800.0,
    memory=2 * 10**9,
    free_memory=8 * 10**9,
    disk=Disk(run=10**9, run_left=10**8, out=10**8),
    free_run=10**10,
    free_out=10**10,
    one_disk=True,
)


def settings(**changes) -> Settings:
    return settings_from("gpt2", **changes)


def plan_of(tmp_path: Path, **train) -> Plan:
    chosen = settings_from(
        None, from_scratch=GPTConfig(2, 2, 16, 64), out=str(tmp_path / "o.pt"), train=TrainConfig(**train)
    )
    splits = load_data(write_records(tmp_path / "r.json", 40), chosen.train, DataConfig(), 64)
    job = make_job(chosen, shape_only(chosen), splits, Ranks(), CPU)
    return make_plan(chosen, job, tmp_path / "run", CPU)


def test_the_estimate_grows_with_the_tokens(tmp_path):
    short, long = (plan_of(tmp_path, epochs=n) for n in (1, 50))
    assert (long.steps, long.tokens) == (50 * short.steps, 50 * short.tokens)
    assert long.seconds > 5 * short.seconds > 0
    assert short.tokens == short.epoch_tokens


def test_what_is_left_of_a_resumed_run(tmp_path):
    chosen = settings_from("tiny", train=TrainConfig(max_steps=10))
    taken = [Resumable(path=tmp_path, weights={}, optimizer={}, counters=Counters(step=n)) for n in (8, 10)]
    plan = make_plan(chosen, replace(small_job(max_steps=10), resume=taken[0]), tmp_path / "run", CPU)
    whole = make_plan(chosen, small_job(max_steps=10), tmp_path / "run", CPU)
    assert (plan.step, plan.steps) == (8, 10)
    assert 5 * plan.tokens == pytest.approx(whole.tokens, abs=5)
    over = make_plan(chosen, replace(small_job(max_steps=10), resume=taken[1]), tmp_path / "run", CPU)
    assert over.tokens == over.seconds == 0


def test_the_job_of_a_plan_takes_the_base_of_an_adapter_to_be_the_same(tmp_path):
    chosen = settings_from("tiny", lora=LoRAConfig())
    splits = load_data(write_records(tmp_path / "r.json", 40), chosen.train, DataConfig(), 64)
    then = Resumable(path=tmp_path, weights={}, optimizer={}, counters=Counters(), identity={"base": 7})
    planned = make_job(chosen, shape_only(chosen), splits, Ranks(), CPU, resume=then)
    assert planned.identity["base"] == 7
    assert "base" not in make_job(chosen, shape_only(chosen), splits, Ranks(), CPU).identity


def test_a_plan_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    plan_of(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def memory(lora: bool = False, tokens: int = 1000, recompute: bool = False, autocast=None, **train) -> int:
    chosen = settings(lora=LoRAConfig() if lora else None, train=TrainConfig(**train), from_scratch=None)
    model = shape_only(replace(chosen, model="gpt2-medium"))
    job = replace(small_job(), model=model, recompute=recompute, autocast=autocast)
    row = row_of([tokens // 8 - 1, tokens // 8 + 1] * 4)
    return memory_needed(job, Optimizer(model, chosen.train), CPU, [row], 1)


def row_of(lengths: list[int], prefixes: list[int | None] | None = None) -> Batch:
    """A row of pieces of these lengths, of which every token is a target."""
    every = torch.arange(sum(lengths))
    return Batch(every[None], PackedRow(lengths, prefixes or [None] * len(lengths), CPU), every, every, [0])


def test_memory_needs_follow_from_what_is_kept():
    full = memory()
    assert memory(lora=True) < full - 3e9  # no gradients and states of the base
    assert memory(lora=True, autocast=torch.bfloat16) < memory(lora=True) - 300e6 * 2
    assert memory(optimizer="muon") < full - 250e6 * 4
    assert memory(recompute=True) < full
    assert memory(tokens=100) < full


def test_the_weights_of_a_large_model_are_not_made_for_its_plan():
    model = shape_only(settings_from("gpt2-xl", lora=LoRAConfig()))
    assert all(p.is_meta for p in model.parameters())
    assert model.config.n_embd == 1600


def test_free_memory_includes_that_of_this_process(monkeypatch):
    monkeypatch.setattr(sizes, "more_memory", lambda device: 2**40)
    assert free_memory(CPU) > 2**40 + 2**20
    monkeypatch.setattr(sizes, "more_memory", lambda device: None)
    assert free_memory(CPU) is None


def test_the_disk_of_a_directory_that_is_still_to_be_made(tmp_path):
    assert free_disk(tmp_path / "a" / "b" / "c.pt") == pytest.approx(free_disk(tmp_path), rel=0.5)


def test_a_plan_that_fits_has_no_warnings():
    assert warnings_of(PLAN, settings()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 8}, ["(10 steps)", "(8 steps)", "only there and never falls: use --epochs 13 or --warmup 0"]),
        ({"steps": 15}, ["10 of 15 steps", "--warmup 0"]),
        ({"steps": 15, "warmup": 0}, ["15 steps are few", "--epochs 3"]),
        ({"steps": 1, "epochs": 1}, ["1 step is few"]),
        ({"memory": 9 * 10**9}, ["9.0 GB of memory", "8.0 GB are free", "--lora or --batch-size 2 --grad-accum 4 or"]),
        ({"free_run": 10**8}, ["1.1 GB of disk", "another --run-dir and --out", "--save-every 0"]),
        ({"free_run": 10**8, "one_disk": False}, ["1.0 GB of disk", "another --run-dir"]),
        ({"free_out": 10**7, "one_disk": False}, ["0.1 GB of disk", "10 MB are free", "another --out"]),
    ],
)
def test_each_warning_names_what_to_change(changes, said):
    (warning,) = warnings_of(replace(PLAN, **changes), settings())
    assert all(text in warning for text in said), warning


@pytest.mark.parametrize(("examples", "helps"), [(1, False), (2, True)])
def test_a_smaller_batch_is_advised_only_if_it_makes_more_steps(examples, helps):
    (warning,) = warnings_of(replace(PLAN, examples=examples, epochs=1, steps=1, warmup=0), settings())
    assert ("--batch-size" in warning) == helps and "--epochs" in warning


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize(("steps", "warmup"), [(30, 29), (30, 30), (30, 40), (30, 28), (30, 16)])
def test_a_rate_that_never_falls_has_a_warning(schedule, steps, warmup):
    train = TrainConfig(schedule=schedule, warmup=warmup, learning_rate=1.0)
    (warning,) = warnings_of(replace(PLAN, steps=steps, warmup=warmup), settings(train=train))
    falls = learning_rate(steps - 1, steps, train) < 1
    assert ("never falls" in warning) == (not falls and schedule != "constant"), warning


@pytest.mark.parametrize(("cooldown", "falls"), [(0.02, False), (0.05, True)])
def test_a_fall_of_less_than_two_steps_is_none(cooldown, falls):
    train = TrainConfig(schedule="wsd", cooldown=cooldown, warmup=2, learning_rate=1.0)
    warnings = warnings_of(replace(PLAN, steps=40, warmup=2), settings(train=train))
    assert (learning_rate(39, 40, train) < 1) == falls == (not warnings)
    assert falls or "--cooldown 0.02 of 40 steps" in warnings[0]


def test_few_steps_of_a_given_number_do_not_grow_with_smaller_batches():
    few = replace(PLAN, steps=15, warmup=0)
    for train, advised in ((TrainConfig(max_steps=15), False), (TrainConfig(batch_size=1), False), (None, True)):
        (warning,) = warnings_of(few, settings(train=train or TrainConfig()))
        assert "15 steps are few" in warning and ("--batch-size" in warning) == advised


def test_advice_leaves_out_what_is_done_already():
    chosen = settings(lora=LoRAConfig(), grad_checkpointing=True, train=TrainConfig(batch_size=1))
    (warning,) = warnings_of(replace(PLAN, memory=9 * 10**9), chosen)
    assert warning.endswith("try a smaller --model")


def test_a_resumed_run_is_not_told_that_it_is_short():
    assert warnings_of(replace(PLAN, steps=8, step=4), settings()) == []


MUON = TrainConfig(optimizer="muon")


def test_muon_for_weights_that_adamw_pretrained_has_a_warning():
    (warning,) = warnings_of(PLAN, settings(train=MUON))
    assert "arXiv 2605.10468" in warning and "leave out --optimizer muon, or compare" in warning
    assert warnings_of(PLAN, settings(train=MUON, lora=LoRAConfig())) == []
    assert warnings_of(PLAN, settings_from(None, train=MUON, from_scratch=GPTConfig())) == []
    assert warnings_of(replace(PLAN, step=4), settings(train=MUON)) == []


@pytest.mark.parametrize(
    ("made_with", "warned"),
    [
        ({"optimizer": "muon"}, False),
        ({"optimizer": "adamw"}, True),
        ({}, True),  # of a version without a choice
    ],
)
def test_muon_for_weights_that_muon_pretrained_has_no_warning(tmp_path, made_with, warned):
    shape = GPTConfig(1, 1, 8, 16)
    for name, scratch in (("pretrained", {"n_layer": 1}), ("tuned", None)):
        provenance = {"settings": {"train": made_with, "from_scratch": scratch}}
        save_checkpoint(GPT(shape), tmp_path / f"{name}.pt", provenance=provenance)
    warnings = warnings_of(PLAN, settings_from(None, ckpt=str(tmp_path / "pretrained.pt"), train=MUON))
    assert len(warnings) == warned
    assert len(warnings_of(PLAN, settings_from(None, ckpt=str(tmp_path / "tuned.pt"), train=MUON))) == 1
    assert warnings_of(PLAN, settings_from("tiny", train=MUON)) == []


@pytest.mark.parametrize("provenance", [{"settings": 7}, {"settings": {"train": [], "from_scratch": 1}}, {}])
def test_a_provenance_that_says_nothing_of_use_is_none(tmp_path, provenance):
    save_checkpoint(GPT(GPTConfig(1, 1, 8, 16)), tmp_path / "out.pt", provenance=provenance)
    assert len(warnings_of(PLAN, settings_from(None, ckpt=str(tmp_path / "out.pt"), train=MUON))) == 1


def test_a_checkpoint_from_before_the_fall_needs_disk_too(tmp_path):
    kept, not_kept = (plan_of(tmp_path, max_steps=20, schedule=name).disk for name in ("wsd", "constant"))
    weights = kept.out
    assert kept.run - not_kept.run == pytest.approx(4 * weights, rel=0.1)  # weights, two states, the best weights


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("autocast", [torch.bfloat16, None])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    ("lengths", "prefixes"),
    [([500], None), ([250, 250], None), ([50, 90, 70, 130], None), ([40] + [60] * 8, [None] + [0] * 8)],
)
def test_the_activations_are_as_large_as_what_autograd_keeps(lora, autocast, dropout, lengths, prefixes):
    shape = GPTConfig(n_layer=3, n_head=4, n_embd=256, block_size=512, vocab_size=50, dropout=dropout)
    model = GPT(shape).train()
    if lora:
        add_lora(model, LoRAConfig())
    if autocast:
        round_frozen(model, autocast)
        make_lean(model, autocast)
    row, weights = row_of(lengths, prefixes), {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    row = replace(row, idx=row.idx % 50, targets=row.targets % 50)
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", autocast) if autocast else nullcontext(),
    ):
        loss = SequenceLoss(model)(row)
    assert loss.requires_grad
    job = replace(small_job(), model=model, autocast=autocast)
    assert sizes._kept(job, CPU, row) * shape.n_layer == pytest.approx(sum(kept.values()), rel=0.12)


def test_memory_for_text_grows_with_the_square_of_its_length():
    job = replace(small_job(), model=shape_only(settings_from("gpt2")))
    short, long = (sizes._passing(job, CPU, row_of(lengths))[0] for lengths in ([256] * 4, [1024]))
    config = job.model.config
    assert long - short == config.n_layer * config.n_head * sizes.KEPT_OF_PAIRS * (1024**2 - 4 * 256**2)


def test_blocks_of_text_leave_more_behind_than_records_do():
    job = replace(small_job(), model=shape_only(settings_from("gpt2")))
    apart, batch, large = (sizes._passing(job, CPU, row_of(lengths)) for lengths in ([500, 524], [512] * 2, [1024]))
    assert [left / passing for passing, left in (apart, batch, large)] == pytest.approx([0.2, 0.8, 0.2], rel=1e-6)


def test_the_rows_of_a_step_add_up_gradients():
    job = replace(small_job(), model=shape_only(settings_from("gpt2")))
    optimizer, rows = Optimizer(job.model, TrainConfig()), [row_of([90, 110])] * 2
    one, two = (memory_needed(job, optimizer, CPU, rows, steps) for steps in (2, 1))
    left_behind = sizes._passing(job, CPU, rows[0])[1]
    assert two - one == pytest.approx(left_behind + 4 * job.model.wte.weight.numel(), abs=2**24)
