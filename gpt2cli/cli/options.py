"""The options that several commands share."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpt2cli.bounds import FieldError
from gpt2cli.cli.config_options import option
from gpt2cli.config import MOST_LOGPROBS, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.prompts import TEMPLATES
from gpt2cli.published import PUBLISHED, TINY

MODEL_PANEL = "Model"
SAMPLING_PANEL = "Sampling"
OUTPUT_PANEL = "Output"
MACHINE_PANEL = "Machine"

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\\": "\\"}
OPTION_OF = {"max_new_tokens": "-n", "temperature": "--temp", "learning_rate": "--lr"}
"""The options whose names differ from the config fields that they set."""


def unescape(texts: list[str] | None) -> list[str] | None:
    """Each text, changed by `unescaped`."""
    return texts and [unescaped(text) for text in texts]


def unescaped(text: str) -> str:
    r"""The text with `\n`, `\t`, `\r` and `\\` replaced by their characters, which a shell does not do."""
    return re.sub(r"\\[ntr\\]", lambda found: ESCAPES[found[0]], text)


def complete_model(incomplete: str) -> list[str]:
    """Completions for the shell: the published names, and the directories whose names begin with `incomplete`."""
    beginning = glob.glob(glob.escape(incomplete) + "*")  # noqa: PTH207 (Path would drop the ./ of ./x)
    return [*PUBLISHED, TINY, *(path for path in beginning if Path(path).is_dir())]


@contextmanager
def named_as_typed(command: str) -> Iterator[None]:
    """Replace the name of a config's field in a FieldError by the name of its option."""
    try:
        yield
    except FieldError as error:
        named = re.sub("[a-z_]+", lambda field: OPTION_OF.get(field[0], "--" + field[0].replace("_", "-")), error.name)
        raise UsageError(f"{named} {error.problem} (see `{command} --help`)") from None


def sampling_config(ctx: typer.Context) -> SamplingConfig:
    """The SamplingConfig that the options of a command give. Raises UsageError, naming the option."""
    given = {field.name: ctx.params[field.name] for field in fields(SamplingConfig) if field.name in ctx.params}
    with named_as_typed(ctx.command_path):
        return SamplingConfig(**given | {"stop": tuple(given["stop"] or ())})


def columns(panel: str) -> Any:
    """The option --columns, under this heading of a help page."""
    return typer.Option(
        "--columns",
        metavar="FIELD=COLUMN,...",
        help="The columns (or JSON keys) for the fields instruction, output, input, system, messages or text, as in "
        "the example below.",
        show_default="found by their names",
        rich_help_panel=panel,
    )


Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"]
of_model, of_sampling, of_output, of_machine = (
    partial(typer.Option, rich_help_panel=panel) for panel in (MODEL_PANEL, SAMPLING_PANEL, OUTPUT_PANEL, MACHINE_PANEL)
)
of_field = partial(option, SAMPLING_PANEL, SamplingConfig)

Model = Annotated[
    str | None,
    of_model(
        "--model",
        "-m",
        metavar="NAME|DIR",
        help=f"A model's name ({', '.join(PUBLISHED)} or tiny), a Hub repository `owner/name[@revision]`, or a "
        "directory.",
        autocompletion=complete_model,
    ),
]
Checkpoint = Annotated[
    str | None,
    of_model(
        "--ckpt",
        metavar="FILE|DIR",
        help="A checkpoint file (.pt, .safetensors or .gguf) from gpt2cli, the Hub, llama.cpp, nanoGPT or "
        "LLMs-from-scratch, or the directory of a LoRA adapter in PEFT's format. --model can name the adapter's base.",
    ),
]
Ablate = Annotated[
    list[str] | None,
    of_model(
        "--ablate",
        metavar="PART,...",
        help="Take parts out of the model: 9.6 (head 6 of layer 9), attn.9 (all heads) or mlp.9. What they add becomes "
        "0. Can be repeated.",
    ),
]
TEMPLATE = "|".join((*TEMPLATES, "FILE"))
Template = Annotated[
    str | None,
    of_model(
        "--template",
        metavar=TEMPLATE,
        help="The prompt template: alpaca, seed (alpaca with an empty line between its two sentences), or a JSON file "
        "with the texts `with_input` and `without_input`, which contain {instruction} and {input}. In gpt2 chat, none "
        "continues the text as it is.",
        show_default="the checkpoint's, else alpaca",
    ),
]
Offline = Annotated[bool, of_model("--offline", help="Never use the network. HF_HUB_OFFLINE=1 does the same.")]
Device = Annotated[
    str,
    of_machine(
        "--device", metavar="auto|cpu|cuda|mps", help="The device that computes. auto: CUDA, else MPS, else the CPU."
    ),
]
PrecisionOption = Annotated[
    Precision,
    of_machine(
        "--precision",
        help="The format of the weights in memory. auto: fp16 on a CPU (int8 for a file with 8 or 4 bits), bf16 on a "
        "CUDA device that supports it, else fp32.",
    ),
]
Threads = Annotated[
    int | None,
    of_machine("--threads", metavar="N", min=1, max=1024, help="Number of CPU threads.", show_default="all cores"),
]
Compile = Annotated[
    bool,
    of_machine("--compile", help="Generate with CUDA graphs on a CUDA device: faster, but the start takes longer."),
]
MaxNewTokens = Annotated[int, of_field("max_new_tokens", "--max-new-tokens", "-n")]
Temperature = Annotated[float, of_field("temperature", "--temp")]
TopK = Annotated[int, of_field("top_k")]
TopP = Annotated[float, of_field("top_p")]
MinP = Annotated[float, of_field("min_p")]
RepetitionPenalty = Annotated[float, of_field("repetition_penalty")]
Seed = Annotated[int | None, of_field("seed")]
Stop = Annotated[
    list[str] | None,
    of_sampling(
        "--stop",
        metavar="TEXT",
        help=r"Stop before this text. \n, \t, \r and \\ mean newline, tab, carriage return and backslash. "
        "Can be repeated.",
        callback=unescape,
    ),
]
NumSamples = Annotated[int, of_field("num_samples")]
Quiet = Annotated[bool, of_output("--quiet", "-q", help="Show only results and errors.")]
Debug = Annotated[bool, of_output("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, of_output("--json", help="Print only JSON lines on stdout.")]
Logprobs = Annotated[
    int | None,
    of_output(
        "--logprobs",
        metavar="N",
        min=0,
        max=MOST_LOGPROBS,
        help="With --json, also print the natural log-probabilities of each new token and of the N likeliest tokens at "
        "its place. They are the model's, before temperature, top-k, top-p, min-p and repetition penalty. A token that "
        "reaches into a stop text is left out, although the text has its beginning.",
    ),
]
Stats = Annotated[bool, of_output("--stats", help="Print the speed on stderr.")]
