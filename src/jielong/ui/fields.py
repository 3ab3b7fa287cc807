"""Reads the JSON that the page sends: every field is checked, and named where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from jielong.config.sampling import Sampling, make_sampling
from jielong.errors import ConfigError
from jielong.serving.errors import RequestError
from jielong.serving.requests import json_object

MOST_CHARACTERS = 20_000
MOST_IDS = 50_000


async def read_fields(request: Request, known: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a request.

    Raises:
        RequestError: it is no JSON object, or has a field that is not `known`.
    """
    values = json_object(await request.body())
    for name in values:
        if name not in known:
            raise RequestError(f"unknown field {name[:60]!r}", field=name[:60])
    return values


def text_field(values: Mapping[str, Any], name: str = "text") -> str:
    """Return a text of bounded length.

    Raises:
        RequestError: it is none, or longer.
    """
    text = values.get(name)
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise RequestError(f"{name} is not a text of at most {MOST_CHARACTERS:,} characters")
    return text


def integer_field(values: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """Return a whole number between bounds.

    Raises:
        RequestError: it is none.
    """
    value = values.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise RequestError(f"{name} is not a whole number from {low} to {high}", field=name)
    return value


def ids_field(values: Mapping[str, Any], vocabulary: int) -> list[int]:
    """Return the tokens of a text.

    Raises:
        RequestError: they are no list of ids of the model.
    """
    ids = values.get("ids")
    if not isinstance(ids, list) or not 0 < len(ids) <= MOST_IDS:
        raise RequestError(f"ids is not a list of 1 to {MOST_IDS:,} tokens", field="ids")
    if not all(type(token) is int and 0 <= token < vocabulary for token in ids):
        raise RequestError("the model has no such tokens: read the text again", field="ids")
    return ids


def knobs_field(values: Mapping[str, Any]) -> Sampling:
    """Return the sampling settings.

    Raises:
        RequestError: one is unknown or out of bounds.
    """
    knobs = values.get("knobs", {})
    if not isinstance(knobs, dict):
        raise RequestError("knobs is not an object", field="knobs")
    try:
        return make_sampling(**knobs)
    except ConfigError as error:
        raise RequestError(str(error).removeprefix("sampling."), field="knobs") from None
