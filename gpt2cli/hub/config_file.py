"""The `config.json` of a model on the Hugging Face Hub, without its weights."""

from typing import Any

from gpt2cli.errors import CheckpointError, NetworkError
from gpt2cli.hub.environment import is_offline
from gpt2cli.hub.hub_client import Remote, prepare_client
from gpt2cli.hub.models import MAX_JSON
from gpt2cli.hub.names import CONFIG, parse_name
from gpt2cli.progress import Progress, ignore
from gpt2cli.untrusted import parse_json


def fetch_config(name: str, *, offline: bool = False, progress: Progress = ignore) -> dict[str, Any]:
    """The config of a model, from the Hub. Nothing is written to disk.

    Raises UsageError for a text that is no model's name, NetworkError if the Hub does not answer or refuses, and
    CheckpointError for a file that is not a JSON object.
    """
    repo, revision = parse_name(name)
    if offline or is_offline():
        why = "it is not on disk and the network is off (--offline or HF_HUB_OFFLINE)"
        raise NetworkError(f"cannot describe {name}: {why}: go online once")
    prepare_client()
    source, content = Remote(repo, revision, progress), b""
    try:
        with source.body(CONFIG, 0) as (_, chunks):
            for chunk in chunks:
                content += chunk
                if len(content) > MAX_JSON:
                    raise CheckpointError(f"{repo}: {CONFIG} is too large: use another repository")
    except NetworkError as error:
        raise NetworkError(f"cannot fetch the config of {name}: {error}") from None
    try:
        config = parse_json(content)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{repo}: {CONFIG} holds no JSON object: use another repository")
    return config
