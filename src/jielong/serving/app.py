"""The web application: which address does what. One guard before all of it, one engine behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from jielong.serving.answers import Answer
from jielong.serving.chat import read_messages, render
from jielong.serving.engine import Engine
from jielong.serving.errors import RequestError
from jielong.serving.guard import Access, Guard, error_response
from jielong.serving.requests import CHAT, COMPLETION, Call, RequestReader
from jielong.serving.rows import Job, Piece

logger = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(engine: Engine, name: str, access: Access) -> Starlette:
    """Create the application.

    Args:
        engine: runs the model; it is started.
        name: of the model, as clients give it.
        access: who may use it.
    """
    api = Api(engine, name)
    routes = [
        Route("/health", api.health),
        Route("/metrics", api.metrics),
        Route("/v1/models", api.models),
        Route("/v1/models/{name}", api.model),
        Route("/v1/completions", api.counted("completions", api.completions), methods=["POST"]),
        Route("/v1/chat/completions", api.counted("chat", api.chat), methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=access, limits=engine.limits)],
        exception_handlers={
            RequestError: _refused,
            HTTPException: _no_such_address,
            ClientDisconnect: _left,
            Exception: _failed,
        },
    )


class Api:
    """The endpoints of OpenAI's API, and what a watchdog asks."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name, self.tokenizer = engine, name, engine.tokenizer
        self.reader = RequestReader(engine.model, engine.tokenizer, name, engine.limits)
        self._model = {"id": name, "object": "model", "created": 0, "owned_by": "jielong"}
        self._model |= {"max_model_len": engine.context}

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        engine = self.engine
        gauges = [
            ("slots", "Texts that can be written at once.", engine.limits.slots),
            ("slots_busy", "Texts being written.", engine.busy_slots),
            ("texts_waiting", "Texts that wait for a slot.", engine.waiting_texts),
            ("requests_open", "Requests that are not done.", engine.jobs),
        ]
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return PlainTextResponse(engine.counters.exposition(gauges), media_type=kind)

    async def models(self, _: Request) -> Response:
        return _json({"object": "list", "data": [self._model]})

    async def model(self, request: Request) -> Response:
        if request.path_params["name"] != self.name:
            raise RequestError(f"there is no such model; this server has {self.name!r}", 404)
        return _json(self._model)

    async def completions(self, request: Request) -> Response:
        body = await request.body()

        def read() -> Call:
            return self.reader.completion(self.reader.fields(body, COMPLETION))

        return await self._answer(request, await run_in_threadpool(read), chat=False)

    async def chat(self, request: Request) -> Response:
        body = await request.body()
        values = self.reader.fields(body, CHAT)
        messages = read_messages(values.pop("messages", None))
        prompt = await render(self.tokenizer, messages)
        call = await run_in_threadpool(self.reader.chat, values, prompt)
        return await self._answer(request, call, chat=True)

    async def _answer(self, request: Request, call: Call, chat: bool) -> Response:
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()

        def put(piece: Piece) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        job, answer = (
            Job(call.texts, put, call.stream),
            Answer(call, self.name, self.tokenizer, chat),
        )
        self.engine.submit(job)
        if call.stream:
            events = self._events(job, answer, pieces)
            return StreamingResponse(events, media_type="text/event-stream")
        try:
            return _json(answer.whole(await _all_pieces(request, job, pieces), job.generated))
        except BaseException:  # the client has left, or one of its texts failed
            self.engine.cancel(job)
            raise

    async def _events(
        self, job: Job, answer: Answer, pieces: asyncio.Queue[Piece]
    ) -> AsyncIterator[bytes]:
        begun: set[int] = set()
        left = len(job.texts)
        try:
            while left:
                ready = [await pieces.get()]
                while not pieces.empty():  # what came meanwhile is sent at once
                    ready.append(pieces.get_nowait())
                events = b""
                for piece in ready:
                    if piece.error is not None:
                        yield events + _event(_as_request_error(piece).body)
                        return
                    events += _event(answer.chunk(piece, first=piece.index not in begun))
                    begun.add(piece.index)
                    left -= piece.finish is not None
                yield events
            if answer.call.usage:
                yield _event(answer.last_chunk(job.generated))
            yield b"data: [DONE]\n\n"
        finally:
            if left:  # the client has left, or one of its texts failed
                self.engine.cancel(job)

    def counted(self, name: str, endpoint: Endpoint) -> Endpoint:
        """Count the answers of an endpoint by their status."""
        answers = self.engine.counters.answers

        async def counting(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except RequestError as error:
                answers[name, error.status] += 1
                raise
            answers[name, response.status_code] += 1
            return response

        return counting


async def _all_pieces(request: Request, job: Job, pieces: asyncio.Queue[Piece]) -> list[Piece]:
    """Wait for the last piece of each text, or for the client to leave."""

    async def collect() -> list[Piece]:
        ends: list[Piece] = []
        while len(ends) < len(job.texts):
            piece = await pieces.get()
            if piece.error is not None:
                raise _as_request_error(piece)
            ends.append(piece)
        return ends

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, leaving = asyncio.create_task(collect()), asyncio.create_task(leave())
    try:
        await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            raise ClientDisconnect
        return collecting.result()
    finally:
        collecting.cancel()
        leaving.cancel()


def _as_request_error(piece: Piece) -> RequestError:
    error = piece.error
    return error if isinstance(error, RequestError) else RequestError(str(error), 500)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _json(value: dict[str, Any]) -> Response:
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
