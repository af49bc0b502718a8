"""What a checkpoint says about a model, besides its weights and its shape."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Set by `checkpoints/read_model.py`; a new model has the defaults.

    precision          int4, int8, or fp32 for any type with more bits
    other_tokenizer    the reason why the model needs another tokenizer than GPT-2's, None if it does not
    template           the stored prompt template, as in `PromptTemplate.to_dict`
    is_plain_text      whether the model was trained on plain text, not on instructions
    is_conversational  whether the model was trained on conversations of several exchanges
    """

    precision: str = "fp32"
    other_tokenizer: str | None = None
    template: Mapping[str, str] | None = None
    is_plain_text: bool = False
    is_conversational: bool = False
