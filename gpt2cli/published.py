"""The models that have a short name."""

from dataclasses import dataclass

from gpt2cli.config import GPTConfig


@dataclass(frozen=True)
class PublishedModel:
    """A model with a short name: its repository on the Hub, its shape, and the bytes of its files there, about."""

    repo: str
    config: GPTConfig
    download_bytes: int


PUBLISHED = {
    "gpt2": PublishedModel("openai-community/gpt2", GPTConfig(), 548_000_000),
    "gpt2-medium": PublishedModel("openai-community/gpt2-medium", GPTConfig(24, 16, 1024), 1_520_000_000),
    "gpt2-large": PublishedModel("openai-community/gpt2-large", GPTConfig(36, 20, 1280), 3_250_000_000),
    "gpt2-xl": PublishedModel("openai-community/gpt2-xl", GPTConfig(48, 25, 1600), 6_430_000_000),
    "distilgpt2": PublishedModel("distilbert/distilgpt2", GPTConfig(6, 12, 768), 353_000_000),
}
DEFAULT_MODEL = "gpt2"
TINY = "tiny"
"""The name of the bundled model."""
