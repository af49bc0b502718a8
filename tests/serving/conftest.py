"""What several tests of the server use."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from openai import OpenAI

    from tests.serving.live_server import LiveServer


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run in asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="module")
def tiny_server() -> "Iterator[LiveServer]":
    """The bundled model, served."""
    from tests.models import tiny
    from tests.serving.live_server import live_server

    with live_server(tiny("int8")) as server:
        yield server


@pytest.fixture(scope="module")
def client(tiny_server: "LiveServer") -> "Iterator[OpenAI]":
    with tiny_server.client() as client:
        yield client
