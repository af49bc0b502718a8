"""What the environment says about the Hub: whether the network is off, and whether there is a token."""

import os

from gpt2cli.errors import NetworkError


def is_offline() -> bool:
    """Whether one of the Hub client's environment variables turns the network off."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in {"1", "ON", "YES", "TRUE"}


def check_token(repo: str) -> None:
    """Raise NetworkError if no token for the Hub is set or stored: every upload to `repo` would be refused."""
    from gpt2cli.hub.hub_client import prepare_client

    prepare_client()
    from huggingface_hub import get_token

    if not get_token():
        raise NetworkError(
            f"there is no token to upload to {repo} with: set HF_TOKEN to one that may write, or run `hf auth login`"
        )
