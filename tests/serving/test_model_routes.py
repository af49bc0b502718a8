"""GET /v1/models: what the openai client reads of the model."""

from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from gpt2cli.config import ServeConfig
from gpt2cli.serving import model_routes
from gpt2cli.serving.app import answering
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.service import Service
from tests.serving.served_models import described_model


@pytest.fixture
def client() -> TestClient:
    service = Service(ServeConfig(), lambda record: None)
    service.begin(described_model(name="owner/tiny"), cast(Engine, object()))
    return TestClient(answering(model_routes.routes(service)))


def test_the_list_has_the_one_model(client: TestClient) -> None:
    answer = client.get("/v1/models").json()
    assert answer["object"] == "list"
    assert [entry["id"] for entry in answer["data"]] == ["owner/tiny"]


@pytest.mark.parametrize("path", ["owner/tiny", "owner%2Ftiny"])
def test_a_name_with_an_owner_is_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/v1/models/{path}")
    assert (answer.status_code, answer.json()) == (200, client.get("/v1/models").json()["data"][0])


@pytest.mark.parametrize("path", ["tiny", "owner", "owner/tiny/", "%ED%A0%80", "a" * 1000])
def test_another_name_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(f"/v1/models/{path}")
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


def test_the_types_of_the_openai_client(client: TestClient) -> None:
    from openai.types import Model

    entry = client.get("/v1/models").json()["data"][0]
    model = Model.model_validate(entry, strict=True)
    assert (model.id, model.owned_by, model.object) == ("owner/tiny", "gpt2cli", "model")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny"])
def test_while_the_model_is_loaded_there_is_none(path: str) -> None:
    service = Service(ServeConfig(), lambda record: None)
    answer = TestClient(answering(model_routes.routes(service))).get(path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
