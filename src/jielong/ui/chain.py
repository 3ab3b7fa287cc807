"""The word chain: read a text, show what may come next, and let the model go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from jielong.errors import JielongError
from jielong.serving.errors import RequestError
from jielong.serving.rows import TextRequest
from jielong.serving.web import error_of, event, json_response, ready_pieces, submitted
from jielong.ui.bars import OTHERS, Reader
from jielong.ui.fields import (
    ids_field,
    integer_field,
    knobs_field,
    read_fields,
    text_field,
)
from jielong.ui.players import Player, Players

MOST_BARS = 50
WHO = ("run", "checkpoint")


class Chain:
    """The endpoints of the word chain."""

    def __init__(self, players: Players) -> None:
        self.players = players

    async def _player(self, values: dict[str, Any]) -> Player:
        who = values.get("run", 0), values.get("checkpoint", "best")
        return await run_in_threadpool(self.players.get, *who)

    async def runs(self, _: Request) -> Response:
        """What was named at the start, with the checkpoints that are there now."""
        listing = await run_in_threadpool(self.players.listing)
        return json_response({"runs": listing})

    async def model(self, request: Request) -> Response:
        """Load a model, and say what it is."""
        player = await self._player(await read_fields(request, WHO))
        return json_response(self.players.about(player))

    async def read(self, request: Request) -> Response:
        """A text as tokens, each with its surprise."""
        values = await read_fields(request, (*WHO, "text"))
        text = text_field(values)
        player = await self._player(values)
        tokens = await _computed(player.reader.prompt, text)
        context = player.reader.context
        return json_response({"tokens": tokens, "context": context})

    async def bars(self, request: Request) -> Response:
        """What may come next, as the knobs are."""
        values = await read_fields(request, (*WHO, "ids", "knobs", "count", "also"))
        count = integer_field(values, "count", 12, 1, MOST_BARS)
        sampling = knobs_field(values)
        player = await self._player(values)
        vocabulary = player.engine.model.config.vocab_size
        ids = ids_field(values, vocabulary)
        also = values.get("also")
        if also is not None:
            also = integer_field(values, "also", 0, 0, vocabulary - 1)
        return json_response(await _computed(player.reader.bars, ids, sampling, count, also))

    async def go_on(self, request: Request) -> Response:
        """Continue a text: a stream of tokens, and at last why it ends."""
        values = await read_fields(request, (*WHO, "ids", "knobs", "count"))
        limit = self.players.limits.max_tokens
        count = integer_field(values, "count", 64, 1, limit)
        sampling = knobs_field(values)
        player = await self._player(values)
        ids = player.reader.within(ids_field(values, player.engine.model.config.vocab_size))
        text = TextRequest(ids, 0, count, sampling, top_logprobs=OTHERS)
        job, pieces = submitted(player.engine, [text], stream=True)

        async def events() -> AsyncIterator[bytes]:
            async with aclosing(ready_pieces(player.engine, job, pieces)) as steps:
                async for ready in steps:
                    for piece in ready:
                        if piece.error is not None:
                            yield event(error_of(piece).body)
                            return
                        for token in piece.tokens:
                            yield event(_token(player.reader, token))
                        if piece.finish is not None:
                            yield event({"finish": piece.finish})

        return StreamingResponse(events(), media_type="text/event-stream")


def _token(reader: Reader, token: Any) -> dict[str, Any]:
    return reader.token(token.id, token.logprob, token.top)


async def _computed(function: Any, *arguments: Any) -> Any:
    """Compute on a thread; what is wrong with the text or the model is told."""
    try:
        return await run_in_threadpool(function, *arguments)
    except RequestError:
        raise
    except (JielongError, RuntimeError) as error:
        raise RequestError(str(error)) from None
