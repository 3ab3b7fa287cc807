"""Errors that a client gets, in OpenAI's form."""

from __future__ import annotations

from typing import Any

from jielong.errors import JielongError

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class RequestError(JielongError):
    """A request that is not answered.

    Attributes:
        status: the HTTP status.
        field: the field of the request that is wrong, if it is one.
        retry_after: seconds after which to try again, if that may help.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.retry_after = status, field, retry_after

    @property
    def headers(self) -> dict[str, str]:
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return headers | (
            {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        )

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": str(self),
            "type": KINDS.get(self.status, kind),
            "param": self.field,
            "code": self.status,
        }
        return {"error": error}
