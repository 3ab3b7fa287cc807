"""The web application: which address does what. One guard before all of it, one engine behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from jielong.serving.answers import Answer
from jielong.serving.chat import read_messages, render
from jielong.serving.engine import Engine
from jielong.serving.errors import RequestError
from jielong.serving.guard import Access
from jielong.serving.requests import CHAT, COMPLETION, Call, RequestReader
from jielong.serving.rows import Job, Piece
from jielong.serving.web import (
    application,
    error_of,
    event,
    json_response,
    ready_pieces,
    submitted,
)

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
    return application(routes, access, engine.limits)


class Api:
    """The endpoints of OpenAI's API, and what a watchdog asks."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name, self.tokenizer = engine, name, engine.tokenizer
        self.reader = RequestReader(engine.model, engine.tokenizer, name, engine.limits)
        self._model = {"id": name, "object": "model", "created": 0, "owned_by": "jielong"}
        self._model |= {"max_model_len": engine.context}

    async def health(self, _: Request) -> Response:
        return json_response({"status": "ok"})

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
        return json_response({"object": "list", "data": [self._model]})

    async def model(self, request: Request) -> Response:
        if request.path_params["name"] != self.name:
            raise RequestError(f"there is no such model; this server has {self.name!r}", 404)
        return json_response(self._model)

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
        answer = Answer(call, self.name, self.tokenizer, chat)
        job, pieces = submitted(self.engine, call.texts, call.stream)
        if call.stream:
            events = self._events(job, answer, pieces)
            return StreamingResponse(events, media_type="text/event-stream")
        try:
            whole = answer.whole(await _all_pieces(request, job, pieces), job.generated)
            return json_response(whole)
        except BaseException:  # the client has left, or one of its texts failed
            self.engine.cancel(job)
            raise

    async def _events(
        self, job: Job, answer: Answer, pieces: asyncio.Queue[Piece]
    ) -> AsyncIterator[bytes]:
        begun: set[int] = set()
        async with aclosing(ready_pieces(self.engine, job, pieces)) as steps:
            async for ready in steps:
                events = b""
                for piece in ready:
                    if piece.error is not None:
                        yield events + event(error_of(piece).body)
                        return
                    events += event(answer.chunk(piece, first=piece.index not in begun))
                    begun.add(piece.index)
                yield events
        if answer.call.usage:
            yield event(answer.last_chunk(job.generated))
        yield b"data: [DONE]\n\n"

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
                raise error_of(piece)
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
