"""BERTScore (Zhang et al. 2020), by its authors' package, which is an extra: it brings transformers along."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2cli.config import EvaluationConfig
from gpt2cli.errors import DataError, NetworkError, UsageError
from gpt2cli.evaluation.scores import Score, mean_of
from gpt2cli.untrusted import is_file, parse_json

DEFAULT_MODEL = EvaluationConfig.bertscore_model
"""The package's own default for English."""
MAX_CONFIG = 2**20
"""Bytes of a model's config.json that is read."""


def forbid_network() -> None:
    """Keep the package and all that it imports from using the network.

    The Hub's client reads the environment when it is imported; if it has been, its constant is set too.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def check_bertscore(model: str = DEFAULT_MODEL) -> None:
    """Raise UsageError if the package is not there, or if it cannot use this model."""
    try:
        import bert_score  # noqa: F401
    except ImportError:
        raise UsageError("--bertscore needs a package that is not there: pip install 'gpt2cli[bertscore]'") from None
    layer_of(model)


def layer_of(model: str) -> int:
    """Which layer's states are compared: the one that the package chose for a model that it knows, and the last one of
    a model in a directory. Raises UsageError for any other model, and DataError for a directory that holds none.
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
    """The means of BERTScore's F1, precision and recall, not rescaled, each 0 for an empty answer.

    The model comes from the Hub on first use, or from a directory. Raises NetworkError if it does not.
    """
    import bert_score

    names = ("bertscore_precision", "bertscore_recall", "bertscore")
    # the package stumbles over an empty text with transformers 5
    said = [(answer, reference) for answer, reference in zip(answers, references, strict=True) if answer.strip()]
    if not said:
        return {name: mean_of([0.0] * len(answers)) for name in names}
    try:
        scored = bert_score.score(*map(list, zip(*said, strict=True)), model_type=model, num_layers=layer_of(model))
    except OSError as error:  # transformers raises it for a model that it cannot load
        reason = str(error).splitlines()[0]
        raise NetworkError(f"--bertscore cannot get its model {model} ({reason}): go online once") from None
    found = {}
    for name, values in zip(names, scored, strict=True):
        of_said = iter(values.tolist())
        found[name] = mean_of(next(of_said) if answer.strip() else 0.0 for answer in answers)
    return found
