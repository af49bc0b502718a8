"""GET /health and GET /metrics."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from gpt2cli.config import ServeConfig
from gpt2cli.serving.monitoring_routes import routes
from gpt2cli.serving.service import RequestRecord, Service
from tests.serving.test_metrics import LoadedEngine


@pytest.fixture
def service() -> Service:
    return Service(ServeConfig(), report=lambda record: None)


def get(service: Service, path: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=routes(service)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(send())


def test_health_is_bad_while_the_model_is_loaded_and_while_the_server_ends(service: Service) -> None:
    answer = get(service, "/health")
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (503, {"status": "loading"}, "1")
    service.begin(None, LoadedEngine())  # type: ignore[arg-type]
    answer = get(service, "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    service.is_ending = True
    answer = get(service, "/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "ending"})


def test_metrics_are_there_before_the_model(service: Service) -> None:
    service.metrics.count(RequestRecord("GET", "/v1/models", 503, 0.1))
    answer = get(service, "/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'gpt2cli_requests_total{route="/v1/models",status="503"} 1.0' in answer.text
    assert "gpt2cli_busy_slots 0.0" in answer.text


def test_metrics_have_the_load_of_the_engine(service: Service) -> None:
    service.begin(None, LoadedEngine())  # type: ignore[arg-type]
    assert "gpt2cli_busy_slots 3.0" in get(service, "/metrics").text
