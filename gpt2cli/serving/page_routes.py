"""The route of the page at `/`."""

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from gpt2cli.serving.page import headers, page
from gpt2cli.serving.service import Service


def routes(service: Service) -> list[Route]:
    """GET /. The page asks the server for everything that depends on the service."""
    html, fixed = page(), headers()

    async def show(request: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=fixed)

    return [Route("/", show)]
