"""Pieces of texts as OpenAI's JSON: whole answers, and chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

from jielong.serving.requests import Call
from jielong.serving.rows import Piece, TokenInfo
from jielong.tokenization.tokenizer import Tokenizer


class Answer:
    """The answer to one request; `chat` and completions differ in the form of a choice.

    Args:
        call: what was asked for.
        name: of the model.
        tokenizer: to spell tokens.
        chat: whether it continues a conversation.
    """

    def __init__(self, call: Call, name: str, tokenizer: Tokenizer, chat: bool) -> None:
        self.call, self.name, self.tokenizer, self.chat = call, name, tokenizer, chat
        self.id = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        self.created = int(time.time())

    def whole(self, pieces: Sequence[Piece], generated: int) -> dict[str, Any]:
        """Return the whole answer.

        Args:
            pieces: one for each text.
            generated: tokens written, of all texts.
        """
        choices = [self._choice(piece) for piece in sorted(pieces, key=lambda p: p.index)]
        answer = self._frame("chat.completion" if self.chat else "text_completion", choices)
        return answer | {"usage": self.usage(generated)}

    def chunk(self, piece: Piece, first: bool) -> dict[str, Any]:
        """Return a piece as a chunk of a stream; `first` of its text."""
        choice = self._choice(piece, streamed=True, first=first)
        return self._frame("chat.completion.chunk" if self.chat else "text_completion", [choice])

    def last_chunk(self, generated: int) -> dict[str, Any]:
        """Return the chunk that tells the numbers of tokens."""
        name = "chat.completion.chunk" if self.chat else "text_completion"
        return self._frame(name, []) | {"usage": self.usage(generated)}

    def usage(self, generated: int) -> dict[str, int]:
        """Return the numbers of tokens."""
        read = self.call.prompt_tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": generated,
            "total_tokens": read + generated,
        }

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.name,
            "choices": choices,
        }

    def _choice(self, piece: Piece, streamed: bool = False, first: bool = True) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": piece.index, "finish_reason": piece.finish}
        asked = self.call.texts[piece.index].top_logprobs is not None
        if not self.chat:
            logprobs = self._logprobs(piece.tokens) if asked else None
            return choice | {"text": piece.text, "logprobs": logprobs}
        logprobs = {"content": [self._chat_token(t) for t in piece.tokens]} if asked else None
        role = {"role": "assistant"} if first else {}
        message = role | {"content": piece.text}
        return choice | {"delta" if streamed else "message": message, "logprobs": logprobs}

    def _logprobs(self, tokens: Iterable[TokenInfo]) -> dict[str, list[Any]]:
        tokens = list(tokens)
        return {
            "tokens": [self._spelt(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {self._spelt(i): p for i, p in _with_own(token)} if token.top else None
                for token in tokens
            ],
            "text_offset": [token.start for token in tokens],
        }

    def _chat_token(self, token: TokenInfo) -> dict[str, Any]:
        own = self._chat_entry(token.id, token.logprob)
        return own | {"top_logprobs": [self._chat_entry(i, p) for i, p in token.top]}

    def _chat_entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        piece = self.tokenizer.piece(token)
        return {"token": self._spelt(token), "logprob": logprob, "bytes": list(piece)}

    def _spelt(self, token: int) -> str:
        """A token as text; part of a character as its bytes, as OpenAI writes them."""
        piece = self.tokenizer.piece(token)
        if not piece:  # an id that only pads the vocabulary
            return f"token_id:{token}"
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _with_own(token: TokenInfo) -> Iterable[tuple[int, float]]:
    """The likeliest tokens, and the one that is there."""
    if token.logprob is None or any(i == token.id for i, _ in token.top):
        return token.top
    return [*token.top, (token.id, token.logprob)]
