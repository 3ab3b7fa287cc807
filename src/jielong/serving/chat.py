"""Conversations: what messages are taken, and their text by the tokenizer's chat template."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import orjson

from jielong.serving.errors import RequestError
from jielong.tokenization.chat import PROGRAM, template_line
from jielong.tokenization.tokenizer import Tokenizer

SECONDS = 4.0  # for the whole program, whose limit of computing time is about 1
AT_ONCE = asyncio.Semaphore(4)


def read_messages(messages: object) -> list[dict[str, Any]]:
    """Check the messages of a request; contents in parts are joined.

    Raises:
        RequestError: they are no list of a role and a text each.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages is not a list of messages", field="messages")
    return [_message(place, message) for place, message in enumerate(messages)]


def _message(place: int, message: object) -> dict[str, Any]:
    where = f"messages[{place}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(f"{where} has no role", field="messages")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if not isinstance(content, str):
        raise RequestError(f"{where}.content is not a text", field="messages")
    return {**message, "content": content}


async def render(tokenizer: Tokenizer, messages: list[dict[str, Any]]) -> str:
    """Return the text of a conversation, up to where the model answers.

    Raises:
        RequestError: the tokenizer has no chat template, or it fails.
    """
    template = tokenizer.chat_template
    if template is None:
        raise RequestError(
            "the tokenizer of this model has no chat template: it continues texts; "
            "use /v1/completions",
            field="messages",
        )
    lines = template_line(template, tokenizer, True), orjson.dumps(messages)
    request = b"".join(line + b"\n" for line in lines)
    async with AT_ONCE:
        answer = await _run(request)
    if "error" in answer:
        raise RequestError(f"the chat template failed: {answer['error']}", field="messages")
    return str(answer["text"])


async def _run(request: bytes) -> dict[str, Any]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-P", str(PROGRAM))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate(request)
        answer: dict[str, Any] = orjson.loads(output)
        return answer
    except (TimeoutError, orjson.JSONDecodeError):  # the latter if it was ended by its limits
        return {"error": "it takes too long"}
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
