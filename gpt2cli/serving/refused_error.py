"""Requests that are refused, in the shape of OpenAI's errors."""

from collections.abc import Mapping
from typing import Any


class RefusedError(Exception):
    """A request is refused. `headers` are those of the answer besides its content type.

    status   the HTTP status: 400 wrong field, 401 key, 403 Host or Origin, 404 model or path, 405 method, 408 too slow,
             413 too large, 415 content type, 429 queue full, 500 the model failed, 503 loading or ending
    param    the name of the field, if one is wrong, such as "logprobs" or "messages[0].content"
    code     a word for programs, such as context_length_exceeded, model_not_found, invalid_api_key
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """The `type` of OpenAI's errors."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 403:
            return "permission_error"
        if self.status == 404:
            return "not_found_error"
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def as_dict(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
