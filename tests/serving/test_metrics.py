"""The numbers of /metrics."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpt2cli.serving.engine import Load
from gpt2cli.serving.metrics import Metrics
from gpt2cli.serving.service import RequestRecord


class LoadedEngine:
    """What `Metrics` asks an engine for."""

    kv_bytes = 1000

    def load(self) -> Load:
        return Load(busy_slots=3, slots=8, waiting_requests=5)


def numbers(metrics: Metrics, engine: object = None) -> dict[str, float]:
    """Each sample by its name, with its labels if it has some."""
    families = text_string_to_metric_families(metrics.text(engine).decode())  # type: ignore[arg-type]
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_and_their_tokens_are_counted():
    metrics = Metrics()
    metrics.count(RequestRecord("POST", "/v1/completions", 200, 2.0, 0.5, prompt_tokens=7, new_tokens=31))
    metrics.count(RequestRecord("POST", "/v1/completions", 499, 0.3, 0.2, prompt_tokens=3, new_tokens=1))
    metrics.count(RequestRecord("POST", "/v1/completions", 400, 0.1))
    metrics.count(RequestRecord("GET", "other", 404, 0.1))
    found = numbers(metrics)
    for status in (200, 499, 400):
        assert found[f"gpt2cli_requests_total /v1/completions {status}"] == 1
    assert found["gpt2cli_requests_total other 404"] == 1
    assert found["gpt2cli_prompt_tokens_total"] == 10
    assert found["gpt2cli_new_tokens_total"] == 32
    assert found["gpt2cli_request_seconds_count"] == 2  # of those that generate
    assert found["gpt2cli_request_seconds_sum"] == pytest.approx(2.3)
    assert found["gpt2cli_first_text_seconds_sum"] == pytest.approx(0.7)
    assert found["gpt2cli_tokens_per_second_count"] == 1  # one token has no speed
    assert found["gpt2cli_tokens_per_second_sum"] == pytest.approx(30 / 1.5)


def test_the_load_is_that_of_the_moment():
    metrics = Metrics()
    names = ("gpt2cli_waiting_requests", "gpt2cli_busy_slots", "gpt2cli_slots", "gpt2cli_kv_bytes")
    assert [numbers(metrics)[name] for name in names] == [0, 0, 0, 0]
    assert [numbers(metrics, LoadedEngine())[name] for name in names] == [5, 3, 8, 1000]


def test_two_servers_in_a_process_count_apart():
    one, other = Metrics(), Metrics()
    one.count(RequestRecord("GET", "/v1/models", 200, 0.1))
    assert "gpt2cli_requests_total /v1/models 200" in numbers(one)
    assert "gpt2cli_requests_total /v1/models 200" not in numbers(other)


def test_every_number_has_a_help_text():
    text = Metrics().text(None).decode()
    names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert len(names) >= 10
    assert names == set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
