"""Shows what a model consists of: a drawing of its blocks, its sizes, the memory that it needs, and its origin."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console as RichConsole
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from gpt2cli.cli.environment import current
from gpt2cli.cli.model_info import ModelInfo
from gpt2cli.cli.terminal import terminal, trimmed, visible_line
from gpt2cli.cli.views.bar_chart import bar, percent
from gpt2cli.cli.views.block_drawing import WIDTH, drawing
from gpt2cli.config import SamplingConfig
from gpt2cli.counted import counted
from gpt2cli.prompts import TEMPLATES
from gpt2cli.published import DEFAULT_MODEL

NUMBER = 16
"""Columns for a number of parameters."""
BAR = 24
"""Columns of the longest bar in the chart of the parameters."""
BESIDE_BAR = 36
"""Columns of names and numbers to the left of a bar."""


def show(info: ModelInfo) -> None:
    """Print everything on stdout, with colors on a terminal."""
    console = terminal(current().stdout)
    with trimmed(console):
        _print(console, info)


def _print(console: RichConsole, info: ModelInfo) -> None:
    blocks = console.encoding.startswith("utf")
    console.print(Text(_title(info), style="bold"), soft_wrap=True)
    console.print()
    if not console.is_terminal or console.width >= WIDTH + NUMBER:  # wrapped, it would be no drawing
        _print_drawing(console, info, blocks)
        console.print()
    bar_columns = min(BAR, max(1, console.width - BESIDE_BAR))
    for table in (_parts(info, blocks, bar_columns), _work(info), _memory(info)):
        console.print(table)
        console.print()
    for line in _origin(info):
        console.print(Text(line), soft_wrap=True)


def _print_drawing(console: RichConsole, info: ModelInfo, blocks: bool) -> None:
    console.print(Text(" T token ids".ljust(WIDTH) + "parameters".rjust(NUMBER), style="dim"))
    for line, count in drawing(info.config, info.parameters, ascii_only=not blocks):
        number = "" if count is None else f"{count:>{NUMBER},}"
        console.print(Text.assemble(line, (number, "cyan")), soft_wrap=True)


def _title(info: ModelInfo) -> str:
    config = info.config
    shape = f"{counted(config.n_layer, 'block')} of {counted(config.n_head, 'head')}, width {config.n_embd:,}"
    return f"{visible_line(info.name)}: {shape}, window {config.block_size:,}"


def _table() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", overflow="fold")  # on a narrow terminal, names wrap and numbers do not
    return table


def _parts(info: ModelInfo, blocks: bool, bar_columns: int) -> Table:
    """The parameters of each part, and their shares."""
    table, total = _table(), info.parameters.total
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", style="cyan")
    parts = ("embedding", "position", "attention", "mlp", "norm", "head")
    for name in parts:
        if count := getattr(info.parameters, name):
            table.add_row(name, f"{count:,}", percent(count / total), bar(count / total, bar_columns, blocks))
    table.add_row("total", f"{total:,}")
    if adapter := info.described.adapter:
        table.add_row("LoRA adapter", f"{adapter.parameters:,}", "", Text(f"of rank {adapter.rank}, merged into these"))
    return table


def _work(info: ModelInfo) -> Table:
    """The work and the cache of a token, and the measured speed."""
    table, window = _table(), info.config.block_size
    table.show_header = False
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("")
    table.add_row("compute", f"{info.flops / 1e9:,.3g} GFLOP", f"a token, with {window:,} tokens of context")
    held = "fp32" if info.precision == "fp32" else "fp16"
    full = decimal(info.cache * window)
    table.add_row("KV cache", f"{info.cache:,} bytes", f"a token in {held}; {full} for the whole window")
    if speed := info.speed:
        how = f"in {speed.precision}, {counted(speed.threads, 'thread')}"
        table.add_row("reads", f"{speed.prefill_tok_s:,.0f} tokens/s", how)
        table.add_row("writes", f"{speed.decode_tok_s:,.1f} tokens/s", how)
        seconds = SamplingConfig().max_new_tokens / speed.decode_tok_s
        later = f"for {SamplingConfig().max_new_tokens} new tokens, after {speed.load_s:.1f} s of loading"
        table.add_row("", f"{seconds:,.1f} s", later)
    return table


def _memory(info: ModelInfo) -> Table:
    """The memory of generating in each precision and of fine-tuning, and whether it is free."""
    table = _table()
    free = "" if info.free is None else f"of {decimal(info.free)} free here"
    table.add_column("weights", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column(free)
    for held, needed in info.generate.items():
        name = f"generate in {held}" + (" (default)" if held == info.precision else "")
        table.add_row(name, decimal(info.weights[held]), decimal(needed), _fits(needed, info.free))
    for name, needed in (
        ("finetune (long records)", info.finetune),
        ("finetune --lora (long records)", info.finetune_lora),
    ):
        table.add_row(name, decimal(info.weights["fp32"]), decimal(needed), _fits(needed, info.free))
    return table


def _fits(needed: int, free: int | None) -> Text:
    if free is None:
        return Text("")
    return Text("fits", style="green") if needed <= free else Text("does not fit", style="red")


def _origin(info: ModelInfo) -> Iterator[str]:
    """Where the model is from, and what it learned."""
    described, facts = info.described, info.described.facts
    if described.stored_as is None:
        yield "not on disk: the first use downloads it"
    else:
        yield f"stored as {described.stored_as}"
    if described.adapter is not None and described.adapter.base:
        yield f"LoRA adapter for {visible_line(described.adapter.base)}"
    yield from _training(facts.provenance)
    if facts.template is not None:
        name = next((name for name, known in TEMPLATES.items() if known.to_dict() == facts.template), "another one")
        learned = "conversations" if facts.is_conversational else "single answers"
        yield f"prompt template: {name}; it learned {learned}"
    elif facts.is_plain_text:
        yield "trained on plain text: it has no prompt template"


def _training(provenance: dict[str, Any]) -> Iterator[str]:
    """The base model, the data, the steps and the losses of the training. The values are those of a file: untrusted."""
    settings, losses = _dict(provenance, "settings"), _dict(provenance, "losses")
    if settings:
        base = settings.get("ckpt") or settings.get("model") or DEFAULT_MODEL
        start = "from scratch" if settings.get("from_scratch") else f"from {base}"
        with_lora = ", with LoRA" if settings.get("lora") else ""
        yield visible_line(f"trained {start} on {settings.get('data') or 'alpaca'}{with_lora}")
    known = [f"{name} loss {loss:.3f}" for name, loss in losses.items() if isinstance(loss, float)]
    if type(step := provenance.get("step")) is int:
        known.insert(0, counted(step, "step"))
    if known:
        yield visible_line(", ".join(known))


def _dict(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}
