"""The HTTP server: uvicorn, with a limit of time for the heads of requests, and a calm end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import threading
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from jielong.errors import ConfigError
from jielong.serving.limits import Limits

LAST_S = 1.5  # after `Limits.stop_s`, for the last answers to leave


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to listen on.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    if not 0 <= port < 2**16:  # getaddrinfo would wrap it around
        raise ConfigError(f"port={port} is not between 0 and {2**16 - 1}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {reason}; give --host or --port"
        ) from None
    return listener


def is_local(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Work(Protocol):
    """What runs behind an application: an `Engine`, or several."""

    def drain(self) -> None:
        """Take no more requests."""

    def end_soon(self) -> None:
        """End what runs."""

    def close(self) -> None:
        """End, and wait for it."""


class Server(uvicorn.Server):
    """Runs the application until SIGINT or SIGTERM; what runs then is finished, if it is short.

    Args:
        app: the application.
        work: is started by the caller, and closed here.
        limits: of times and connections.
    """

    def __init__(self, app: ASGIApp, work: Work, limits: Limits) -> None:
        times = {"header_s": limits.header_s, "send_s": limits.send_s}
        protocol = type("Protocol", (TimedProtocol,), times)
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(limits.stop_s + LAST_S),
        )
        super().__init__(config)
        # it warns of each piece that is written before it is known that a client has left
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        self.work, self.stop_s = work, limits.stop_s

    def serve_on(self, listener: socket.socket) -> None:
        """Serve until a signal comes."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # uvicorn raises the signal again when it has ended: then all is done
                signal.signal(number, lambda *_: None)
        try:
            self.run(sockets=[listener])
        finally:
            self.work.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests; give those that run `stop_s` to end."""
        self.work.drain()
        closing = asyncio.get_running_loop().call_later(self.stop_s, self.work.end_soon)
        await super().shutdown(sockets)
        closing.cancel()


class TimedProtocol(H11Protocol):
    """Closes connections whose next request, or reading of an answer, does not come in time."""

    header_s = 10.0
    send_s = 30.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # answers that were handed to the system whole must not wait forever to be read
            milliseconds = int(self.send_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_timer is None:  # it runs from the first byte, whatever trickles in
            self._head_timer = self.loop.call_later(self.header_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
