"""GET /v1/models and /v1/models/{id}: the one model that is served."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gpt2cli.serving.service import Service


def routes(service: Service) -> list[Route]:
    async def list_models(request: Request) -> JSONResponse:
        model, _ = service.loaded()
        return JSONResponse({"object": "list", "data": [model.as_dict()]})

    async def one_model(request: Request) -> JSONResponse:
        model, _ = service.loaded()
        model.check_name(request.path_params["id"])
        return JSONResponse(model.as_dict())

    return [Route("/v1/models", list_models), Route("/v1/models/{id:path}", one_model)]
