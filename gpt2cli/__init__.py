"""GPT-2 in your terminal: generate text, fine-tune it, chat with it, measure it.

The README shows how to use it from Python.
"""

import os
import sys

TYPE_CHECKING = False  # typing itself takes long enough to import for a Ctrl-C to come in between

__version__ = "0.1.0"

# Threads of GNU's OpenMP, which PyTorch computes with, wait for each other in a loop that lasts milliseconds.
# Where another program wants the processor too, that makes them a hundred times slower, and nothing is lost with less.
# The library reads this once, when it is loaded, which importing torch does.
if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# the names people import from here, and the modules that hold them
_HOMES = {
    "Chat": "gpt2cli.generation.conversation",
    "ExplainConfig": "gpt2cli.config",
    "GPTConfig": "gpt2cli.config",
    "SamplingConfig": "gpt2cli.config",
    "GPT2Error": "gpt2cli.errors",
    "ask": "gpt2cli.generation.conversation",
    "chat": "gpt2cli.generation.conversation",
    "decode": "gpt2cli.tokenizer",
    "encode": "gpt2cli.tokenizer",
    "explain": "gpt2cli.insight.explain",
    "load": "gpt2cli.checkpoints.load",
    "load_plain": "gpt2cli.checkpoints.load",
    "generate": "gpt2cli.generation.text",
    "stream": "gpt2cli.generation.text",
    "TextGeneration": "gpt2cli.generation.text",
}
__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from typing import Any

    from gpt2cli.checkpoints.load import load as load
    from gpt2cli.checkpoints.load import load_plain as load_plain
    from gpt2cli.config import ExplainConfig as ExplainConfig
    from gpt2cli.config import GPTConfig as GPTConfig
    from gpt2cli.config import SamplingConfig as SamplingConfig
    from gpt2cli.errors import GPT2Error as GPT2Error
    from gpt2cli.generation.conversation import Chat as Chat
    from gpt2cli.generation.conversation import ask as ask
    from gpt2cli.generation.conversation import chat as chat
    from gpt2cli.generation.text import TextGeneration as TextGeneration
    from gpt2cli.generation.text import generate as generate
    from gpt2cli.generation.text import stream as stream
    from gpt2cli.insight.explain import explain as explain
    from gpt2cli.tokenizer import decode as decode
    from gpt2cli.tokenizer import encode as encode


def __getattr__(name: str) -> "Any":
    """Import a public name when it is first asked for: torch takes a second that `gpt2 --help` need not spend."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gpt2cli' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
