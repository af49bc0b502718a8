"""Shared by commands that generate text: opening the model, and describing the result."""

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpt2cli.cli.interrupts import raise_received
from gpt2cli.cli.terminal import Console
from gpt2cli.counted import counted

if TYPE_CHECKING:
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.generation.text import Sample, TextGeneration
    from gpt2cli.inference.decoder import Decoder


def open_model(
    console: Console, spec: "ModelSpec", threads: int | None, compile: bool, for_text: bool = True
) -> "tuple[Decoder, float]":
    """Load a model, and show the progress of downloads. Returns it and the load time in seconds, without compilation.

    With `for_text`, raises CheckpointError for a model with another tokenizer.
    """
    from gpt2cli.cli.views.downloads import showing_downloads
    from gpt2cli.cli.views.spinner import working

    start = time.perf_counter()
    with showing_downloads(console) as progress:
        decoder = replace(spec, threads=threads).load(progress, for_text=for_text, compile=compile)
    seconds = time.perf_counter() - start
    with working(console, "compiling") if decoder.compiling_note() else nullcontext():
        seconds += decoder.prepare(console.note)
    raise_received()  # compilers catch what a signal raises
    return decoder, seconds


def note_dropped(console: Console, run: "TextGeneration") -> None:
    """Print a note if the prompt was cut to the window."""
    if run.dropped:
        dropped, kept = counted(run.dropped, "token"), len(run.prompt_ids)
        console.note(f"the prompt is too long: left out {dropped} at its beginning, kept the last {kept:,}")


def note_ablated(console: Console, spec: "ModelSpec") -> None:
    """Print a note if parts were taken out of the model."""
    if spec.ablate:
        console.note(f"taken out of the model: {', '.join(map(str, spec.ablate))}")


def ablated_as_json(spec: "ModelSpec") -> dict[str, Any]:
    """The parts that were taken out of the model, if any, for JSON."""
    return {"ablated": [str(part) for part in spec.ablate]} if spec.ablate else {}


def sample_as_json(prompt: str, sample: "Sample", run: "TextGeneration", load_s: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "prompt": prompt,
        "text": sample.text,
        "tokens": sample.tokens,
        "finish_reason": sample.finish_reason,
        "seed": sample.seed,
        "stats": {
            "prompt_tokens": len(run.prompt_ids),
            "new_tokens": len(sample.tokens),
            "prefill_tok_s": run.prefill_tok_s,
            "decode_tok_s": run.decode_tok_s,
            "load_s": load_s,
        },
    }
    if run.logprobs is not None:
        found["logprobs"] = [entry.as_dict() for entry in sample.logprobs]
    return found


def why_empty(sample: "Sample") -> str:
    """The reason why a sample that has ended has no text."""
    return "a stop text came first" if sample.finish_reason == "stop" else "the model ended the text at once"


def describe_speed(run: "TextGeneration") -> str:
    read = counted(len(run.prompt_ids), "prompt token")
    if run.prefill_tok_s:
        read += f" at {run.prefill_tok_s:.0f} tokens/s"
    written = counted(sum(len(sample.tokens) for sample in run.samples), "new token")
    if run.decode_tok_s:
        written += f" at {run.decode_tok_s:.1f} tokens/s"
    return f"{read} · {written} · seed {run.samples[0].seed}"
