"""The one layer that every request passes first: who may ask, how much and how long.

A page of any site that is open in a browser can send requests to this machine. So the names by
which the server is called (Host) and the site that asks (Origin) must be its own; a foreign name
that resolves to this machine (DNS rebinding) is refused like a foreign site.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jielong.serving.errors import RequestError
from jielong.serving.limits import Limits

LOCAL = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = ("/health",)  # for a watchdog, without the token
HEADERS = {  # what a page brings of its own takes precedence
    "X-Content-Type-Options": "nosniff",  # text of a model is never taken for markup
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        hosts: names by which it may be called, in lower case.
        any_address: whether it may also be called by any IP address: no foreign name is one.
        token: what requests must carry; None asks for nothing.
        cookie: name of a cookie that may carry the token instead, as browsers do.
        open_paths: what is answered without the token.
    """

    hosts: tuple[str, ...] = LOCAL
    any_address: bool = False
    token: str | None = None
    cookie: str | None = None
    open_paths: tuple[str, ...] = OPEN_PATHS

    def refusal(self, path: str, headers: Headers) -> RequestError | None:
        """Return why a request is refused, or None."""
        host = headers.getlist("host")
        if len(host) != 1 or not self._is_ours(host[0]):
            return RequestError("the Host header names another server (see --allow-host)", 403)
        for origin in headers.getlist("origin"):
            if origin.lower().partition("://")[2] != host[0].lower():
                return RequestError("the Origin header names another site", 403)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if path in self.open_paths or self.admits(given if scheme == "Bearer" else None):
            return None
        if self.cookie and self.admits(cookie_parser(headers.get("cookie", "")).get(self.cookie)):
            return None
        how = "open the address with the token" if self.cookie else "Authorization: Bearer TOKEN"
        return RequestError(f"give the server's token: {how}", 401)

    def admits(self, given: str | None) -> bool:
        """Whether this is the token, or none is asked for."""
        if self.token is None:
            return True
        return secrets.compare_digest((given or "").encode(), self.token.encode())

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host, ""
        if port and not (port.isascii() and port.isdigit()):
            return False
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address


class Guard:
    """ASGI middleware: refuses what `Access` refuses, and keeps requests within `Limits`."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app, self.access, self.limits = app, access, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # nothing here speaks WebSocket
            return await send({"type": "websocket.close", "code": 1008})
        guarded = _Guarded(receive, send, self.limits)
        headers = Headers(scope=scope)
        refusal = self.access.refusal(scope["path"], headers)
        if refusal is None and int(headers.get("content-length", "0")) > self.limits.body_bytes:
            refusal = too_large(self.limits)
        if refusal is not None:
            return await error_response(refusal)(scope, guarded.receive, guarded.send)
        try:
            await self.app(scope, guarded.receive, guarded.send)
        except SlowClientError:
            return None  # the connection is closed, since its answer is incomplete
        return None


class SlowClientError(Exception):
    """A client does not read what is sent to it."""


class _Guarded:
    """The two ends of a connection, within limits."""

    def __init__(self, receive: Receive, send: Send, limits: Limits) -> None:
        self._receive, self._send, self._limits = receive, send, limits
        self._bytes, self._whole = 0, False
        self._deadline = asyncio.get_running_loop().time() + limits.body_s

    async def receive(self) -> Message:
        if self._whole:  # what may come now is that the client leaves
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            seconds = self._limits.body_s
            raise RequestError(f"the body did not come within {seconds:g} s", 408) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limits.body_bytes:
            raise too_large(self._limits)
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        try:
            async with asyncio.timeout(self._limits.send_s):
                await self._send(message)
        except TimeoutError:
            raise SlowClientError from None


def too_large(limits: Limits) -> RequestError:
    """Return the error of a body that is too large."""
    return RequestError(f"the body is larger than {limits.body_bytes:,} bytes", 413)


def error_response(error: RequestError) -> JSONResponse:
    """Return the answer that tells an error."""
    return JSONResponse(error.body, error.status, error.headers)
