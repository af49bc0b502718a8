"""GET /health and GET /metrics, for the programs that watch a server."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gpt2cli.serving.service import Service


def routes(service: Service) -> list[Route]:
    async def health(request: Request) -> JSONResponse:
        """200 while requests for texts are accepted, else 503."""
        if service.is_ending:
            return JSONResponse({"status": "ending"}, 503)
        if service.engine is None:
            return JSONResponse({"status": "loading"}, 503, {"Retry-After": "1"})
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        text = service.metrics.text(service.engine)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/health", health), Route("/metrics", metrics)]
