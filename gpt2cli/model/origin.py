"""How a checkpoint stored the weights of a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Set by `checkpoints/read_model.py`; a new model has the defaults.

    precision        int4, int8, or fp32 for any type with more bits
    other_tokenizer  the reason why the model needs another tokenizer than GPT-2's, None if it does not
    """

    precision: str = "fp32"
    other_tokenizer: str | None = None
