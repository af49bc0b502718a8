"""The options that several commands share."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

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
"""The options whose names differ from the config fields that they set."""


def unescape(texts: list[str] | None) -> list[str] | None:
    r"""The texts with `\n`, `\t`, `\r` and `\\` replaced by their characters, which a shell does not do."""
    return texts and [re.sub(r"\\[ntr\\]", lambda found: ESCAPES[found[0]], text) for text in texts]


def complete_model(incomplete: str) -> list[str]:
    """Completions for the shell: the published names, and the directories whose names begin with `incomplete`."""
    beginning = glob.glob(glob.escape(incomplete) + "*")  # noqa: PTH207 (Path would drop the ./ of ./x)
    return [*PUBLISHED, TINY, *(path for path in beginning if Path(path).is_dir())]


@contextmanager
def named_as_typed(command: str) -> Iterator[None]:
    """Make a config's error about one of its fields name the option that sets the field."""
    try:
        yield
    except UsageError as error:
        # the message begins with the field's name, or with a sum of several
        found = re.match(r"[a-z_]+( \+ [a-z_]+)*", str(error))
        fields = found[0] if found else ""
        if not str(error).startswith(f"{fields} "):  # the message is about a path
            raise
        named = re.sub(r"[a-z_]+", lambda field: OPTION_OF.get(field[0], "--" + field[0].replace("_", "-")), fields)
        raise UsageError(f"{named}{str(error)[len(fields) :]} (see `{command} --help`)") from None


Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"]
of_model, of_sampling, of_output, of_machine = (
    partial(typer.Option, rich_help_panel=panel) for panel in (MODEL_PANEL, SAMPLING_PANEL, OUTPUT_PANEL, MACHINE_PANEL)
)

Model = Annotated[
    str | None,
    of_model(
        "--model",
        "-m",
        metavar="NAME|OWNER/REPO|DIR",
        help=f"{', '.join(PUBLISHED)}, tiny, a Hub repository `owner/name\\[@revision]`, or a local directory.",
        autocompletion=complete_model,
    ),
]
Checkpoint = Annotated[
    str | None,
    of_model(
        "--ckpt",
        metavar="FILE|DIR",
        help="A checkpoint file (.pt, .safetensors or .gguf) from gpt2cli, the Hub, llama.cpp, nanoGPT or "
        "LLMs-from-scratch. Or a directory with a LoRA adapter in PEFT's format; --model can then name its base.",
    ),
]
TEMPLATE = "|".join((*TEMPLATES, "FILE"))
Template = Annotated[
    str | None,
    of_model(
        "--template",
        metavar=TEMPLATE,
        help="The prompt template for instructions: a name, or a JSON file with the texts `with_input` and "
        "`without_input`, which contain {instruction} and {input}.",
        show_default="the checkpoint's, else alpaca",
    ),
]
Offline = Annotated[bool, of_model("--offline", help="Never use the network (also: HF_HUB_OFFLINE=1).")]
Device = Annotated[str, of_machine("--device", metavar="auto|cpu|cuda|mps", help="The device to compute on.")]
PrecisionOption = Annotated[
    Precision,
    of_machine(
        "--precision",
        help="The precision of the weights. auto: fp16 on a CPU (int8 for a file with 8 or 4 bits), bf16 on a CUDA "
        "device that computes in it.",
    ),
]
Threads = Annotated[
    int | None,
    of_machine("--threads", min=1, max=1024, help="The number of CPU threads.", show_default="all cores"),
]
Compile = Annotated[
    bool, of_machine("--compile", help="Decode with CUDA graphs, on a CUDA device: faster, after some seconds.")
]
MaxNewTokens = Annotated[int, of_sampling("--max-new-tokens", "-n", help="The largest number of tokens to generate.")]
Temperature = Annotated[
    float, of_sampling("--temp", help="The temperature: above 1 more random, below 1 less random, 0 greedy.")
]
TopK = Annotated[int, of_sampling("--top-k", help="Sample from the k most likely tokens; 0 for all tokens.")]
TopP = Annotated[
    float, of_sampling("--top-p", help="Sample from the most likely tokens that together reach this probability.")
]
MinP = Annotated[
    float,
    of_sampling("--min-p", help="Drop tokens with less than this fraction of the most likely token's probability."),
]
RepetitionPenalty = Annotated[
    float, of_sampling("--repetition-penalty", help="Above 1, tokens in the text so far become less likely.")
]
Seed = Annotated[
    int | None,
    of_sampling("--seed", help="The random seed. The same seed gives the same text.", show_default="random"),
]
Stop = Annotated[
    list[str] | None,
    of_sampling(
        "--stop",
        metavar="TEXT",
        help=r"End before this text, in which \n, \t, \r and \\ mean newline, tab, return and backslash. Can be given "
        "more than once.",
        callback=unescape,
    ),
]
Quiet = Annotated[bool, of_output("--quiet", "-q", help="Print only results and errors.")]
Debug = Annotated[bool, of_output("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, of_output("--json", help="Print JSON lines, and nothing else, on stdout.")]
Stats = Annotated[bool, of_output("--stats", help="Print the speed on stderr.")]
