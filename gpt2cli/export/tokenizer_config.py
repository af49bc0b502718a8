"""The content of transformers' `tokenizer_config.json` for GPT-2's tokenizer."""

from typing import Any

from gpt2cli.export.chat_template import as_jinja
from gpt2cli.prompts import PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT


def tokenizer_config(window: int, template: PromptTemplate | None) -> dict[str, Any]:
    """The settings, with a chat template if there is a prompt template. `window` is in tokens."""
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    fields = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": window,
    }
    return fields | special | ({"chat_template": as_jinja(template)} if template else {})
