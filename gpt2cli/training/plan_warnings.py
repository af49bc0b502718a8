"""What may go wrong with a planned run, each time with an option that helps."""

from collections.abc import Iterator
from dataclasses import replace

from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.counted import counted
from gpt2cli.errors import GPT2Error
from gpt2cli.published import TINY
from gpt2cli.training.estimate import Plan
from gpt2cli.training.optim import steps_before_fall
from gpt2cli.training.settings import Settings

MEMORY_ADVICE = "a smaller --batch-size with more --grad-accum, --grad-checkpointing, or --lora"
FEW_STEPS = 20
"""A run of fewer steps learns little."""
GB = 10**9


def warnings_of(plan: Plan, settings: Settings) -> list[str]:
    """One sentence for each problem. None of them stops the run."""
    at_start = [] if plan.step else [*_about_optimizer(settings), *_about_steps(plan, settings)]
    return [*at_start, *_about_memory(plan, settings), *_about_disk(plan, settings)]


def _about_optimizer(settings: Settings) -> Iterator[str]:
    """Warn of Muon for all weights of a pretrained model: see "Can Muon Fine-tune Adam-Pretrained Models?" (2026)."""
    is_new = settings.from_scratch or settings.lora
    if settings.train.optimizer == "muon" and not is_new and not _pretrained_with_muon(settings):
        yield (
            "Muon can make weights worse that AdamW pretrained (arXiv 2605.10468): leave out --optimizer muon, or "
            "compare the validation loss with that of --optimizer adamw"
        )


def _pretrained_with_muon(settings: Settings) -> bool:
    """Whether a run with Muon made the weights that this run starts from, as far as their provenance says it."""
    if settings.ckpt is None:
        return settings.model == TINY  # its provenance is empty
    try:
        then = read_metadata(settings.ckpt).provenance.get("settings")
    except GPT2Error:
        return False
    train = then.get("train") if isinstance(then, dict) and then.get("from_scratch") else None
    return isinstance(train, dict) and train.get("optimizer") == "muon"


def _about_steps(plan: Plan, settings: Settings) -> Iterator[str]:
    """Warn if the learning rate reaches its peak late or never falls from it, or if the steps are few."""
    steps, train = counted(plan.steps, "step"), replace(settings.train, warmup=plan.warmup)
    more = _more_steps(plan, settings)
    falls = train.schedule == "constant" or steps_before_fall(plan.steps, train) < plan.steps - 1
    if plan.warmup >= plan.steps - 1 > 0:
        yield (
            f"the warm-up ({plan.warmup} steps) lasts until the end of the run ({steps}), and the learning rate "
            f"reaches its peak only there{'' if falls else ' and never falls'}: use {more} or --warmup 0"
        )
    elif 2 * plan.warmup > plan.steps > 1:
        share = f"{plan.warmup} of {steps}"
        yield f"the warm-up takes {share}: for more steps at the full learning rate, use {more} or --warmup 0"
    elif plan.steps < FEW_STEPS:
        are = "is" if plan.steps == 1 else "are"
        batches_shrink = train.max_steps is None and train.batch_size > 1 and plan.examples > 1
        smaller = " or a smaller --batch-size" if batches_shrink else ""
        yield f"{steps} {are} few to learn from: use {more}{smaller}"
    elif not falls:
        share = f"--cooldown {train.cooldown:g} of {steps}"
        yield f"{share} is less than two, so the learning rate never falls: use a larger --cooldown"


def _more_steps(plan: Plan, settings: Settings) -> str:
    """The option for a run of at least five times its warm-up, and of FEW_STEPS."""
    wanted = max(FEW_STEPS, 5 * plan.warmup)
    if settings.train.max_steps is not None:
        return f"--max-steps {wanted}"
    per_epoch = -(-plan.steps // plan.epochs)
    return f"--epochs {-(-wanted // per_epoch)}"


def _about_memory(plan: Plan, settings: Settings) -> Iterator[str]:
    if plan.free_memory is None or plan.memory <= plan.free_memory:
        return
    helps = [] if settings.lora or settings.from_scratch else ["--lora"]
    if settings.train.batch_size > 1:
        smaller = max(1, settings.train.batch_size // 4)
        accumulated = -(-settings.train.batch_size * settings.train.grad_accum // smaller)
        helps.append(f"--batch-size {smaller} --grad-accum {accumulated}")
    if not settings.grad_checkpointing:
        helps.append("--grad-checkpointing")
    try_ = f": try {' or '.join(helps)}" if helps else ": try a smaller --model"
    place = "" if plan.device == "cpu" else f" on {plan.device}"
    needs = f"the run needs about {gigabytes(plan.memory)} of memory{place}"
    yield f"{needs}, and {gigabytes(plan.free_memory)} are free{try_}"


def _about_disk(plan: Plan, settings: Settings) -> Iterator[str]:
    run, out = plan.disk.run, plan.disk.out
    places = [(run + out, plan.free_run, "another --run-dir and --out")]
    if not plan.one_disk:
        places = [(run, plan.free_run, "another --run-dir"), (out, plan.free_out, "another --out")]
    for needed, free, other in places:
        if free is not None and needed > free:
            saving = " or --save-every 0" if needed != out and settings.train.save_every != 0 else ""
            needs = f"the run needs up to {gigabytes(needed)} of disk"
            yield f"{needs}, and {gigabytes(free)} are free: use {other}{saving}"


def gigabytes(count: int) -> str:
    """A number of bytes in GB of 10^9 bytes, with two digits."""
    value = count / GB
    return f"{value:.0f} GB" if value >= 10 else f"{value:.1f} GB" if value >= 0.1 else f"{value * 1000:.0f} MB"
