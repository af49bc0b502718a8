"""Refuses requests that do not come from an allowed client, before any of their content is looked at.

- The Host header must name this server. Otherwise the owner of a web page could point a domain to 127.0.0.1, and the
  page could reach the server by this domain (DNS rebinding).
- An Origin header must name the server's own page, or an origin of --cors-origin. Only the latter get CORS headers.
- Without an Origin header, browsers tell where a request comes from in Sec-Fetch-Site. A foreign page may link to the
  server, and may not load anything from it.
- If the server has a key, a request must have it.
"""

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2cli.serving.addresses import (
    Authority,
    allowed_origins,
    is_any,
    is_loopback,
    plain_host,
    read_authority,
    read_origin,
)
from gpt2cli.serving.answers import refused
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.service import Service

WITHOUT_KEY = ("/", "/health")
"""The paths that need no key: the page, which asks for it, and what tells whether the server is ready."""
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "*, Authorization",  # the asterisk does not stand for Authorization
    "Access-Control-Max-Age": "600",
}


class Guards:
    """An ASGI application that passes on the requests that `service.config` allows."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._config = app, service.config
        self._origins = allowed_origins(service.config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origins = headers.getlist("origin")
        is_foreign = len(origins) == 1 and read_origin(origins[0]) in self._origins

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered.add_vary_header("Origin")
                if is_foreign:
                    answered["Access-Control-Allow-Origin"] = origins[0]
                    answered["Access-Control-Expose-Headers"] = "Retry-After, X-Should-Retry"
            await send(message)

        app: ASGIApp = self._app
        try:
            self._check(headers, is_foreign)
            if is_foreign and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                app = Response(status_code=204, headers=_PREFLIGHT)
            elif scope["path"] not in WITHOUT_KEY:
                self._check_key(headers)
        except RefusedError as error:
            app = refused(error)
        await app(scope, receive, send_with_cors if self._origins else send)

    def _check(self, headers: Headers, is_foreign: bool) -> None:
        """Raise RefusedError unless the request is for this server, and from a page that may use it."""
        if "content-length" in headers and "transfer-encoding" in headers:
            # a proxy may take another one for the length, and read the rest of the body as a request
            closing = {"Connection": "close"}
            raise RefusedError(400, "a request has Content-Length or Transfer-Encoding, not both", headers=closing)
        authority = self._authority(headers)
        if not is_foreign:
            _check_page(headers, authority)

    def _authority(self, headers: Headers) -> Authority:
        """The host and port by which the client knows this server. Raises RefusedError for another server's."""
        hosts = headers.getlist("host")
        authority = read_authority(hosts[0]) if len(hosts) == 1 else None
        if authority is None:
            raise RefusedError(403, "the request needs one Host header, with a host and a port")
        config = self._config
        if not (is_loopback(authority.host) or authority.host == plain_host(config.host) or is_any(config.host)):
            raise RefusedError(403, "the Host header names another server: use localhost, or the host given as --host")
        return authority

    def _check_key(self, headers: Headers) -> None:
        if self._config.api_key is None:
            return
        given = headers.getlist("authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Starlette decodes headers as Latin-1
        is_right = hmac.compare_digest(key.strip().encode("latin-1"), self._config.api_key.encode())
        if scheme.lower() != "bearer" or not is_right:
            what = "the key is wrong" if given else "this server needs a key"
            advice = "send the header Authorization: Bearer KEY, with the key that the server was started with"
            challenge = {"WWW-Authenticate": "Bearer"}
            raise RefusedError(401, f"{what}: {advice}", code="invalid_api_key", headers=challenge)


def _check_page(headers: Headers, authority: Authority) -> None:
    """Raise RefusedError for a request from a web page that is not the server's own."""
    origins = headers.getlist("origin")
    if origins and [read_origin(origin) for origin in origins] != [f"http://{authority.host}:{authority.port}"]:
        raise RefusedError(403, "pages of this origin may not use the server: start it with --cors-origin ORIGIN")
    is_own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if not origins and not is_own and not is_link:
        raise RefusedError(403, "pages of other origins may not load anything from the server, except with CORS")
