"""What every web application of ours is made of: one guard, errors as JSON, and streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from jielong.serving.engine import Engine
from jielong.serving.errors import RequestError
from jielong.serving.guard import Access, Guard, error_response
from jielong.serving.limits import Limits
from jielong.serving.rows import Job, Piece, TextRequest

logger = logging.getLogger(__name__)


def application(routes: Sequence[BaseRoute], access: Access, limits: Limits) -> Starlette:
    """Create an application behind the guard, whose every error is JSON in OpenAI's form."""
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=access, limits=limits)],
        exception_handlers={
            RequestError: _refused,
            HTTPException: _no_such_address,
            ClientDisconnect: _left,
            Exception: _failed,
        },
    )


def submitted(
    engine: Engine, texts: Sequence[TextRequest], stream: bool
) -> tuple[Job, asyncio.Queue[Piece]]:
    """Let an engine continue texts; their pieces come through the queue.

    Raises:
        RequestError: too many requests wait, or the server is about to stop.
    """
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()

    def put(piece: Piece) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    job = Job(texts, put, stream)
    engine.submit(job)
    return job, pieces


async def ready_pieces(
    engine: Engine, job: Job, pieces: asyncio.Queue[Piece]
) -> AsyncGenerator[list[Piece], None]:
    """Yield what has come meanwhile, until every text has ended or one has failed.

    The request is given up where the caller closes the iterator before that: its client has left.
    """
    left = len(job.texts)
    try:
        while left:
            ready = [await pieces.get()]
            while not pieces.empty():
                ready.append(pieces.get_nowait())
            left -= sum(piece.finish is not None for piece in ready)
            yield ready
            if any(piece.error is not None for piece in ready):
                return
    finally:
        if left:
            engine.cancel(job)


def error_of(piece: Piece) -> RequestError:
    """Return the error of a text that cannot go on."""
    error = piece.error
    return error if isinstance(error, RequestError) else RequestError(str(error), 500)


def event(value: dict[str, Any]) -> bytes:
    """Return a value as a server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def json_response(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)


async def _no_such_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: "there is nothing at this address", 405: f"{request.method} is not allowed here"}
    message = told.get(error.status_code, error.detail)
    return error_response(RequestError(message, error.status_code))


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # which no one reads


async def _failed(_: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return error_response(RequestError("the server made a mistake; its log says more", 500))
