"""Looks inside a model: the views of `jielong inspect`, drawn by the same code."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from jielong.errors import JielongError
from jielong.present.result import Result
from jielong.present.words import sayer
from jielong.serving.errors import RequestError
from jielong.serving.web import json_response
from jielong.ui.fields import integer_field, read_fields, text_field
from jielong.ui.players import Player, Players, Subject, without_path

KEPT = 8  # pages that a frame may still ask for
MOST_WAITING = 8
HEAD_CHARACTERS = 400  # each head is a picture of tokens by tokens
FIELDS = (
    *("run", "checkpoint", "view", "text", "step", "rows", "layer", "language", "scheme"),
    *("clean", "guesses"),
)


class Inside:
    """The endpoints that make a view, and hand its page to a frame."""

    def __init__(self, players: Players) -> None:
        self.players = players
        self._pages: OrderedDict[str, str] = OrderedDict()
        self._one = asyncio.Semaphore(1)  # a view may take all cores; matplotlib is not for threads
        self._waiting = 0

    async def make(self, request: Request) -> Response:
        """Make a view; answer with the address of its page."""
        values = await read_fields(request, FIELDS)
        language, scheme = values.get("language", "en"), values.get("scheme", "auto")
        if language not in ("en", "zh") or scheme not in ("auto", "light", "dark"):
            raise RequestError("language is en or zh, scheme auto, light or dark")
        if self._waiting >= MOST_WAITING:
            raise RequestError("too many views are being made: try again", 429, retry_after=2)
        self._waiting += 1
        try:
            async with self._one:
                page = await run_in_threadpool(self._made, values, language, scheme)
        finally:
            self._waiting -= 1
        name = secrets.token_hex(16)
        self._pages[name] = page
        while len(self._pages) > KEPT:
            self._pages.popitem(last=False)
        return json_response({"page": f"inside/{name}"})

    async def page(self, request: Request) -> Response:
        """The page of a view that was made, for a frame: it has no scripts."""
        from jielong.present.html import POLICY

        page = self._pages.get(request.path_params["name"])
        if page is None:
            raise RequestError("this view is gone: make it again", 404)
        policy = {"Content-Security-Policy": f"{POLICY}; frame-ancestors 'self'"}
        return HTMLResponse(page, headers=policy)

    def _made(self, values: dict[str, Any], language: str, scheme: str) -> str:
        from jielong.present.html import document

        view = values.get("view")
        subject = self.players.subject(values.get("run", 0))
        try:
            if view in OF_RUNS:
                result = OF_RUNS[view](subject, values)
            elif view in OF_MODELS:
                player = self.players.get(subject.number, values.get("checkpoint", "best"))
                result = OF_MODELS[view](player, values)
            else:
                raise RequestError("there is no such view", field="view")
            return document(result.page(sayer(language)), language, scheme)
        except RequestError:
            raise
        except (JielongError, OSError, RuntimeError) as error:
            raise RequestError(without_path(error, subject)) from None


def _data(subject: Subject, values: dict[str, Any]) -> Result:
    from jielong.insight.data import inspect_data

    _check_run(subject)
    step = integer_field(values, "step", 0, 0, 10**12)
    rows = integer_field(values, "rows", 2, 1, 16)
    return inspect_data(subject.folder, step, rows, 64, values.get("clean") is True)


def _schedule(subject: Subject, values: dict[str, Any]) -> Result:
    from jielong.insight.schedule import inspect_schedule

    _check_run(subject)
    return inspect_schedule(subject.folder)


def _check_run(subject: Subject) -> None:
    if not subject.is_run:
        raise RequestError(f"{subject.name} is a model alone: its run has the data", field="run")


def _predict(player: Player, values: dict[str, Any]) -> Result:
    from jielong.insight.predictions import inspect_predictions

    guesses = integer_field(values, "guesses", 5, 1, 20)
    return inspect_predictions(*_read(player, values), guesses=guesses)


def _layers(player: Player, values: dict[str, Any]) -> Result:
    from jielong.insight.layers import inspect_layers

    return inspect_layers(*_read(player, values))


def _attention(player: Player, values: dict[str, Any]) -> Result:
    from jielong.insight.attention import inspect_attention

    if len(text_field(values)) > HEAD_CHARACTERS:
        raise RequestError(f"for heads, give at most {HEAD_CHARACTERS} characters", field="text")
    layers = player.engine.model.config.num_hidden_layers
    layer = integer_field(values, "layer", 0, 0, layers)
    return inspect_attention(*_read(player, values), layer=layer or None)


def _experts(player: Player, values: dict[str, Any]) -> Result:
    from jielong.insight.experts import inspect_experts

    return inspect_experts(*_read(player, values))


def _embeddings(player: Player, values: dict[str, Any]) -> Result:
    from jielong.insight.embeddings import inspect_embeddings

    return inspect_embeddings(*_read(player, values))


def _tokenizer(player: Player, values: dict[str, Any]) -> Result:
    from jielong.insight.tokenizer import inspect_tokenizer

    return inspect_tokenizer(player.engine.tokenizer, text_field(values))


def _model(player: Player, values: dict[str, Any]) -> Result:
    from jielong.insight.model import inspect_model

    return inspect_model(player.engine.model.config, player.reader.context, 1)


def _read(player: Player, values: dict[str, Any]) -> tuple[Any, Any, str]:
    return player.engine.model, player.engine.tokenizer, text_field(values)


OF_RUNS: dict[Any, Callable[[Subject, dict[str, Any]], Result]] = {
    "data": _data,
    "schedule": _schedule,
}
OF_MODELS: dict[Any, Callable[[Player, dict[str, Any]], Result]] = {
    "predict": _predict,
    "layers": _layers,
    "attention": _attention,
    "experts": _experts,
    "embeddings": _embeddings,
    "tokenizer": _tokenizer,
    "model": _model,
}
