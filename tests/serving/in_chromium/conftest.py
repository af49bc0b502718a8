"""The page in a browser, with a server that a test scripts. Without Chromium these tests are skipped."""

from collections.abc import Iterator

import pytest

from tests.serving.in_chromium.browser import CHROMIUM, Tab, chromium
from tests.serving.in_chromium.page_server import PageServer


@pytest.fixture(scope="module")
def server() -> PageServer:
    return PageServer()


@pytest.fixture(scope="module")
def address(server: PageServer) -> Iterator[str]:
    with server.running() as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, server: PageServer, address: str) -> Iterator[Tab]:
    """The page, which knows its model."""
    server.reset()
    browser.open(address)
    browser.wait_for_text("#model", "scripted")
    browser.logged.clear()
    yield browser
    assert not [line for line in browser.logged if "status of" not in line and "net::ERR" not in line]
