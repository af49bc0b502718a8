"""The server's HTTP application."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from gpt2cli.serving import (
    answers,
    generation_routes,
    model_routes,
    monitoring_routes,
    page_routes,
    tokenizer_routes,
)
from gpt2cli.serving.guards import Guards
from gpt2cli.serving.request_log import RequestLog
from gpt2cli.serving.service import Service


def make_app(service: Service) -> ASGIApp:
    """All paths of the server, with the log and the checks of each request around them."""
    modules = (generation_routes, model_routes, tokenizer_routes, monitoring_routes, page_routes)
    routes = [route for module in modules for route in module.routes(service)]
    return RequestLog(Guards(answering(routes), service), service, routes)


def answering(routes: Sequence[Route]) -> Starlette:
    """The routes, with OpenAI's errors for all that fails. A path is exact: no redirect to one with another slash."""
    app = Starlette(routes=routes, exception_handlers=answers.HANDLERS)
    app.router.redirect_slashes = False
    return app
