"""The page comes with headers that keep other pages and other servers out."""

from starlette.applications import Starlette
from starlette.testclient import TestClient

from gpt2cli.config import ServeConfig
from gpt2cli.serving import page_routes
from gpt2cli.serving.page import page
from gpt2cli.serving.service import Service
from tests.pages import Tags


def test_the_page_has_the_headers_of_its_policy():
    client = TestClient(Starlette(routes=page_routes.routes(Service(ServeConfig(), lambda record: None))))
    answer = client.get("/?text=<script>")
    assert answer.status_code == 200
    assert answer.text == page()  # no value of a request gets into it
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    [policy] = [attributes["content"] for _, attributes in Tags(answer.text).tags if attributes.get("http-equiv")]
    assert answer.headers["content-security-policy"] == f"{policy}; frame-ancestors 'none'"
    assert client.head("/").status_code == 200
    assert client.post("/").status_code == 405
