"""The models that have a short name."""

from dataclasses import dataclass

from gpt2cli.config import GPTConfig


@dataclass(frozen=True)
class PublishedModel:
    """A model with a short name: its repository on the Hub and its shape."""

    repo: str
    config: GPTConfig


PUBLISHED = {
    "gpt2": PublishedModel("openai-community/gpt2", GPTConfig()),
    "gpt2-medium": PublishedModel("openai-community/gpt2-medium", GPTConfig(24, 16, 1024)),
    "gpt2-large": PublishedModel("openai-community/gpt2-large", GPTConfig(36, 20, 1280)),
    "gpt2-xl": PublishedModel("openai-community/gpt2-xl", GPTConfig(48, 25, 1600)),
    "distilgpt2": PublishedModel("distilbert/distilgpt2", GPTConfig(6, 12, 768)),
}
DEFAULT_MODEL = "gpt2"
TINY = "tiny"
"""The name of the bundled model."""
