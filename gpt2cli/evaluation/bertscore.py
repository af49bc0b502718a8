"""BERTScore (Zhang et al. 2020), by its authors' package. It is an extra, because it installs transformers."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2cli.config import EvaluationConfig
from gpt2cli.errors import DataError, NetworkError, UsageError
from gpt2cli.evaluation.scores import Score, mean_of
from gpt2cli.untrusted import is_file, parse_json

DEFAULT_MODEL = EvaluationConfig.bertscore_model
"""The package's default for English."""
MAX_CONFIG = 2**20
"""The largest config.json of a model, in bytes."""


def forbid_network() -> None:
    """Prevent the package and its dependencies from using the network.

    The Hub's client reads the environment at import. If it was imported before, its constant must be set too.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def check_bertscore(model: str = DEFAULT_MODEL, offline: bool = False) -> None:
    """Raise UsageError if the package is not installed, or if it cannot use this model.

    With `offline` the package will not use the network. It must not have been imported before.
    """
    if offline:
        forbid_network()
    try:
        import bert_score  # noqa: F401
    except ImportError:
        raise UsageError("--bertscore needs a missing package: pip install 'gpt2cli[bertscore]'") from None
    layer_of(model)


def layer_of(model: str) -> int:
    """The layer whose hidden states are compared.

    For a model that the package knows, this is the package's choice. For a model in a directory, it is the last layer.
    Raises UsageError for any other model, and DataError for a directory without a usable config.json.
    """
    from bert_score.utils import model2layers

    config = Path(model) / "config.json"
    if model in model2layers:
        return int(model2layers[model])
    if not is_file(config):
        raise UsageError(
            f"--bertscore-model {model} is neither a directory nor a model that bert-score knows: "
            f"give one such as {DEFAULT_MODEL}"
        )
    try:
        with config.open("rb") as file:
            layers = parse_json(file.read(MAX_CONFIG))["num_hidden_layers"]
    except (KeyError, TypeError, ValueError):
        layers = None
    if type(layers) is not int or layers < 1:
        raise DataError(f"{config} does not say how many layers the model has (num_hidden_layers): give another model")
    return layers


def bertscore(answers: Sequence[str], references: Sequence[str], model: str = DEFAULT_MODEL) -> dict[str, Score]:
    """The means of BERTScore's precision, recall and F1 (`bertscore`), not rescaled. An empty answer counts as 0.

    Raises NetworkError if the model cannot be loaded: it is downloaded on first use, unless it is in a directory.
    """
    import bert_score

    names = ("bertscore_precision", "bertscore_recall", "bertscore")
    # with transformers 5 the package fails for an empty text
    pairs = [(answer, reference) for answer, reference in zip(answers, references, strict=True) if answer.strip()]
    if not pairs:
        return {name: mean_of([0.0] * len(answers)) for name in names}
    try:
        scored = bert_score.score(*map(list, zip(*pairs, strict=True)), model_type=model, num_layers=layer_of(model))
    except OSError as error:  # of transformers, for a model that it cannot load
        reason = str(error).splitlines()[0]
        raise NetworkError(f"--bertscore cannot get its model {model} ({reason}): go online once") from None
    found = {}
    for name, values in zip(names, scored, strict=True):
        scores = iter(values.tolist())
        found[name] = mean_of(next(scores) if answer.strip() else 0.0 for answer in answers)
    return found
