"""Conversations → texts, by a tokenizer's chat template or, where there is none, as ChatML."""

from __future__ import annotations

import importlib.util
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from jielong.errors import DataError
from jielong.tokenization.tokenizer import BOS, EOS, Tokenizer

PROGRAM = Path(__file__).with_name("render_chat.py")
SECONDS = 10.0  # for one conversation, whose limit of computing time is about 1
CHATML = (BOS, EOS)


def template_line(template: str, tokenizer: Tokenizer, add_generation_prompt: bool) -> bytes:
    """Return the first line that `render_chat.py` reads."""
    tokens = {
        name: tokenizer.piece(token).decode() if token is not None else ""
        for name, token in (("bos_token", tokenizer.bos_id), ("eos_token", tokenizer.eos_id))
    }
    request = {"template": template, "add_generation_prompt": add_generation_prompt, **tokens}
    return orjson.dumps(request)


def chatml(messages: list[dict[str, Any]]) -> str:
    """Return a conversation as ChatML: each turn between `<|im_start|>` and `<|im_end|>`."""
    begin, end = CHATML
    return "\n".join(f"{begin}{m['role']}\n{m['content']}{end}" for m in messages)


class Chat:
    """Makes texts of conversations; called with messages of role and content.

    Args:
        tokenizer: whose chat template is used; None for the text that one is trained on: plain
            turns, since special tokens are no text to learn pieces of.

    Attributes:
        way: how the texts are made, in words.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._template = None if tokenizer is None else tokenizer.chat_template
        self._process: subprocess.Popen[bytes] | None = None
        self.way = "as plain turns" if tokenizer is None else "as ChatML"
        if self._template is not None:
            self.way = "by the tokenizer's chat template"

    def __call__(self, messages: list[dict[str, Any]]) -> str:
        """Return the text of a conversation.

        Raises:
            ValueError: the template fails on it.
            DataError: the tokenizer has no chat template, and not the tokens of ChatML either; or
                there is no library for its template.
        """
        if self._tokenizer is None:
            return "\n".join(f"{m['role']}\n{m['content']}" for m in messages)
        if self._template is None:
            self._check_chatml(self._tokenizer)
            return chatml(messages)
        if self._process is None:
            self._process = self._start(self._template)
        answer = _ask(self._process, messages)
        if "error" in answer:
            self.close()
            raise ValueError(f"the tokenizer's chat template fails: {answer['error']}")
        return str(answer["text"]).rstrip("\n")  # so that the text ends with what ends a turn

    def _check_chatml(self, tokenizer: Tokenizer) -> None:
        known = {tokenizer.piece(i) for i in tokenizer.special_tokens}
        if missing := [token for token in CHATML if token.encode() not in known]:
            raise DataError(
                f"the text holds conversations, but the tokenizer has no chat template, and no "
                f"token {missing[0]} to write them as ChatML: give a tokenizer with a chat "
                "template, or train one by leaving --tokenizer out"
            )

    def _start(self, template: str) -> subprocess.Popen[bytes]:
        if importlib.util.find_spec("jinja2") is None:
            raise DataError(
                "the tokenizer's chat template, which makes texts of conversations, needs the "
                "library Jinja: pip install 'jielong[serve]'"
            )
        assert self._tokenizer is not None
        process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(template_line(template, self._tokenizer, False) + b"\n")
        return process

    def close(self) -> None:
        """End the process that runs the template, if there is one."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()

    def __del__(self) -> None:
        self.close()


def _ask(process: subprocess.Popen[bytes], messages: list[dict[str, Any]]) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(orjson.dumps(messages) + b"\n")
        process.stdin.flush()
        if select.select([process.stdout], [], [], SECONDS)[0]:
            answer: dict[str, Any] = orjson.loads(process.stdout.readline())
            return answer
    except (BrokenPipeError, orjson.JSONDecodeError):  # it was ended by its limits
        pass
    return {"error": "it takes too long"}
