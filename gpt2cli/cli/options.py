"""Options that several commands share, each declared once."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gpt2cli.config import PUBLISHED, TINY
from gpt2cli.errors import UsageError
from gpt2cli.prompts import TEMPLATES

MODEL_PANEL = "Model"
SAMPLING_PANEL = "Sampling"
OUTPUT_PANEL = "Output"
MACHINE_PANEL = "Machine"

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\\": "\\"}
OPTION_OF = {"max_new_tokens": "-n", "temperature": "--temp", "learning_rate": "--lr"}
"""Where the option that sets a config's field is not called like it."""


def unescape(texts: list[str] | None) -> list[str] | None:
    r"""The texts with `\n`, `\t`, `\r` and `\\` replaced by their characters: shells leave them as they are."""
    return texts and [re.sub(r"\\[ntr\\]", lambda found: ESCAPES[found[0]], text) for text in texts]


def complete_model(incomplete: str) -> list[str]:
    """The published names, and the directories that begin so, for the shell."""
    beginning = glob.glob(glob.escape(incomplete) + "*")  # noqa: PTH207 (Path would not keep what is typed: ./x)
    return [*PUBLISHED, TINY, *(path for path in beginning if Path(path).is_dir())]


@contextmanager
def named_as_typed(command: str) -> Iterator[None]:
    """Let a config's complaint about one of its fields name the option that sets it."""
    try:
        yield
    except UsageError as error:
        # the complaint begins with the field's name, or with a sum of several
        found = re.match(r"[a-z_]+( \+ [a-z_]+)*", str(error))
        fields = found[0] if found else ""
        if not str(error).startswith(f"{fields} "):  # it is about a path
            raise
        named = re.sub(r"[a-z_]+", lambda field: OPTION_OF.get(field[0], "--" + field[0].replace("_", "-")), fields)
        raise UsageError(f"{named}{str(error)[len(fields) :]} (see `{command} --help`)") from None


class Precision(str, Enum):
    """What the weights are held in for inference."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"
    int4 = "int4"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|OWNER/REPO|DIR",
        help=f"{', '.join(PUBLISHED)}, tiny, a Hub repository `owner/name\\[@revision]`, or a local directory.",
        rich_help_panel=MODEL_PANEL,
        autocompletion=complete_model,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--ckpt",
        metavar="FILE|DIR",
        help="A checkpoint file (.pt, .safetensors or .gguf): ours, the Hub's, llama.cpp's, nanoGPT's, "
        "LLMs-from-scratch's. "
        "Or a directory with a LoRA adapter in PEFT's format; --model may then name its base.",
        rich_help_panel=MODEL_PANEL,
    ),
]
TEMPLATE = "|".join((*TEMPLATES, "FILE"))
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar=TEMPLATE,
        help="The wording that instructions are put in: a name, or a JSON file with the texts `with_input` and "
        "`without_input`, in which {instruction} and {input} stand for what is asked.",
        show_default="the checkpoint's, else alpaca",
        rich_help_panel=MODEL_PANEL,
    ),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Never touch the network (also: HF_HUB_OFFLINE=1).", rich_help_panel=MODEL_PANEL),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Where to compute.", rich_help_panel=MACHINE_PANEL),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="What the weights are held in. auto: fp16 on a CPU (int8 if the file has 8 or 4 bits), bf16 on CUDA if it "
        "computes in it.",
        rich_help_panel=MACHINE_PANEL,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=1024,
        help="Processor threads to use.",
        show_default="all cores",
        rich_help_panel=MACHINE_PANEL,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Decode by CUDA graphs, on a CUDA device: faster, after some seconds.",
        rich_help_panel=MACHINE_PANEL,
    ),
]
MaxNewTokens = Annotated[
    int,
    typer.Option(
        "--max-new-tokens", "-n", help="How many tokens to write at the most.", rich_help_panel=SAMPLING_PANEL
    ),
]
Temperature = Annotated[
    float, typer.Option("--temp", help="Above 1 wilder, below 1 tamer, 0 greedy.", rich_help_panel=SAMPLING_PANEL)
]
TopK = Annotated[
    int, typer.Option("--top-k", help="Choose among the k likeliest tokens; 0 for all.", rich_help_panel=SAMPLING_PANEL)
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p",
        help="Choose among the likeliest that together reach this probability.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
MinP = Annotated[
    float,
    typer.Option(
        "--min-p",
        help="Drop tokens below this share of the likeliest one's probability.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option("--repetition-penalty", help="Above 1, shun tokens already used.", rich_help_panel=SAMPLING_PANEL),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", help="The same seed gives the same text.", show_default="random", rich_help_panel=SAMPLING_PANEL
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TEXT",
        help=r"End before this text, where \n, \t, \r and \\ mean newline, tab, return and backslash; may be given "
        "more than once.",
        rich_help_panel=SAMPLING_PANEL,
        callback=unescape,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors only.", rich_help_panel=OUTPUT_PANEL)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT_PANEL)]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON lines, and nothing else, on stdout.", rich_help_panel=OUTPUT_PANEL)
]
Stats = Annotated[bool, typer.Option("--stats", help="Say how fast it went, on stderr.", rich_help_panel=OUTPUT_PANEL)]
