"""Where the time goes: the kernels of a few steps, by their total time, in DIR/profile-*.txt."""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpt2cli.config import SamplingConfig
from gpt2cli.generation.decode import generate_tokens
from tests.gpu import speed_train
from tests.gpu.common import Context, random_ids, random_model, use_graphs

SHOWN = 25


def decode(context: Context) -> None:
    """Steps of 124M in bf16 by graphs, one row."""
    model = use_graphs(context, random_model(context.shape("124m"), context.device).to(torch.bfloat16))
    sampling = SamplingConfig(max_new_tokens=96, temperature=0)
    prompt = [random_ids(context.pick(64, 8), 0)]
    for _ in range(2):
        list(generate_tokens(model, prompt, sampling, [0], speculate=False))
    tokens = generate_tokens(model, prompt, sampling, [0], speculate=False)
    # tokens come in bursts of 16 behind the first, and while one is read the next is computed
    watch(context, "decode", tokens, 17, 32)


def text(context: Context) -> None:
    """Steps of training 124M on 16 blocks of text."""
    training(context, "text", context.pick(16, 2))


def text_compiled(context: Context) -> None:
    """The same with `--compile`."""
    training(context, "text", context.pick(16, 2), compiled=True)


def records(context: Context) -> None:
    """Steps of training 124M on 8 records."""
    training(context, "records", context.pick(8, 2))


def training(context: Context, data: str, batch: int, compiled: bool = False) -> None:
    config = context.shape("124m")
    maker = speed_train.text_splits if data == "text" else speed_train.record_splits
    settings = speed_train.make_settings(config, batch, lora=False)
    model = speed_train.make_model(context, settings)
    steps = speed_train.events(settings, model, maker(context, config), compiled)
    watch(context, f"{data}-compile" if compiled else data, steps, 10, 3)


def watch(context: Context, name: str, steps: Iterator, warm_up: int, count: int) -> None:
    """Profile `count` steps of an iterator after `warm_up` ones, and write a table of the kernels."""
    for _ in range(warm_up):
        next(steps)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if context.cuda else [])]
    with profile(activities=activities) as found:
        start = context.clock()
        for _ in range(count):
            next(steps)
        seconds = context.clock() - start
    wanted = DeviceType.CUDA if context.cuda else DeviceType.CPU
    events = [e for e in found.events() if e.device_type == wanted and not getattr(e, "is_user_annotation", False)]
    spans = [(e.name, e.time_range.start, e.time_range.end) for e in events]
    busy = covered([span[1:] for span in spans]) / 1e6
    launches = sum(e.name.startswith(("cudaLaunch", "cudaGraphLaunch", "cuLaunch")) for e in found.events())
    figures = {"ms_a_step": seconds / count * 1e3, "busy_share": min(1.0, busy / seconds)}
    figures |= {"kernels": len(spans) / count, "launches": launches / count}
    title = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
    text = f"{name}, {context.device}, a step: {title}\n{table(spans, count)}"
    (context.out / f"profile-{name}.txt").write_text(text)
    context.report(None, True, file=f"profile-{name}.txt", **figures)


def table(spans: list[tuple[str, float, float]], count: int) -> str:
    """The names with the largest total time: its share, ms and calls a step. Nested CPU events overlap."""
    total: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for name, start, end in spans:
        total[name] += end - start
        calls[name] += 1
    everything = sum(total.values()) or 1.0
    lines = [f"{'share':>6} {'ms':>9} {'calls':>7}  name"]
    for name in sorted(total, key=total.__getitem__, reverse=True)[:SHOWN]:
        share, each = total[name] / everything, total[name] / 1e3 / count
        lines.append(f"{share:6.1%} {each:9.4f} {calls[name] / count:7.1f}  {name[:150]}")
    return "\n".join(lines) + "\n"


def covered(spans: list[tuple[float, float]]) -> float:
    """How much of the time line the spans cover together, in their unit."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
