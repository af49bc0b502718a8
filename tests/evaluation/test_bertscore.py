"""BERTScore: its package is an extra, so that a stand-in of the same form tells how it is called, and the real one runs
where it is there."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gpt2cli.errors import DataError, NetworkError, UsageError
from gpt2cli.evaluation.bertscore import bertscore, check_bertscore, forbid_network, layer_of
from tests.evaluation.test_scores import REFERENCES, SAID

NAMES = ("bertscore_precision", "bertscore_recall", "bertscore")


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A stand-in that gives each pair the shares of words that it has in common; the calls of `score`."""
    calls: list[Any] = []

    def score(answers: list[str], references: list[str], model_type: str, num_layers: int) -> tuple[torch.Tensor, ...]:
        assert all(answers), "the package fails for an empty text"
        calls.append((model_type, num_layers))
        if model_type == "facebook/bart-base":
            raise OSError("We couldn't connect\nto the Hub")
        pairs = [(set(a.split()), set(b.split())) for a, b in zip(answers, references, strict=True)]
        p, r = (torch.tensor([len(a & b) / len(pair[i]) for pair in pairs for a, b in [pair]]) for i in (0, 1))
        return p, r, 2 * p * r / (p + r).clamp(min=1e-9)

    stand_in, utils = ModuleType("bert_score"), ModuleType("bert_score.utils")
    stand_in.score, utils.model2layers = score, {"roberta-large": 17, "facebook/bart-base": 6}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bert_score", stand_in)
    monkeypatch.setitem(sys.modules, "bert_score.utils", utils)
    yield calls


def test_an_empty_answer_counts_as_nothing(package: list[Any]) -> None:
    found = bertscore(["", "a b", " "], ["x", "a c d e", "y"])
    assert {name: score.of_each() for name, score in found.items()} == {
        "bertscore_precision": [0, 0.5, 0],
        "bertscore_recall": [0, 0.25, 0],
        "bertscore": [0, pytest.approx(1 / 3), 0],
    }
    assert package == [("roberta-large", 17)]
    assert [score.of_each() for score in bertscore(["", " "], ["a", "b"]).values()] == [[0, 0]] * 3
    assert len(package) == 1


def test_a_model_that_does_not_come_is_a_network_error(package: list[Any]) -> None:
    with pytest.raises(NetworkError, match=r"facebook/bart-base \(We couldn't connect\): go online"):
        bertscore(["a"], ["a"], "facebook/bart-base")


def test_which_layer_is_compared(package: list[Any], tmp_path: Path) -> None:
    assert layer_of("roberta-large") == 17
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 3}')
    assert layer_of(str(tmp_path)) == 3
    check_bertscore(str(tmp_path))
    with pytest.raises(UsageError, match="--bertscore-model robert is neither a directory nor"):
        check_bertscore("robert")
    for content in ("[]", "{}", "no", '{"num_hidden_layers": "3"}', "[" * 100_000):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(DataError, match="does not say how many layers"):
            layer_of(str(tmp_path))


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(UsageError, match=r"pip install 'gpt2cli\[bertscore\]'"):
        check_bertscore()


def test_offline_holds_for_a_client_that_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    forbid_network()
    assert constants.is_offline_mode() if hasattr(constants, "is_offline_mode") else constants.HF_HUB_OFFLINE


def test_it_is_the_authors(tmp_path: Path) -> None:
    theirs = pytest.importorskip("bert_score")
    from tests.evaluation.bert import save_bert

    model = str(save_bert(tmp_path))
    scored = theirs.score(SAID[:3], REFERENCES[:3], model_type=model, num_layers=2)
    for name, values in zip(NAMES, scored, strict=True):
        assert bertscore(SAID[:3], REFERENCES[:3], model)[name].of_each() == pytest.approx(values.tolist())
        with_empty = bertscore(["", *SAID[:3], " "], ["a", *REFERENCES[:3], "b"], model)[name].of_each()
        assert with_empty == pytest.approx([0, *values.tolist(), 0])
    assert bertscore(REFERENCES, REFERENCES, model)["bertscore"].of_each() == pytest.approx([1] * 5)
