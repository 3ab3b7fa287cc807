"""One text being written: what it has read, how it goes on, and what its client gets."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from jielong.config.sampling import Sampling
from jielong.errors import JielongError
from jielong.generation.batch_decoder import CacheSlot
from jielong.generation.generate import MIN_TOKENS_TO_PACK, PRIMED_TOKENS
from jielong.generation.sampling import new_generator
from jielong.generation.stopping import StopFilter
from jielong.serving.logprobs import Info
from jielong.tokenization.tokenizer import Tokenizer

PIECE_S = 0.02  # tokens that come sooner after a piece go into the next: each piece costs 0.15 ms


class TokenInfo(NamedTuple):
    """A token and how likely the model found it.

    Attributes:
        id: of the token.
        start: characters of the text before the token's first one: where it begins.
        logprob: natural logarithm of its probability, before all filters and temperature; None for
            a token that nothing precedes.
        top: the likeliest tokens there, with theirs.
    """

    id: int
    start: int
    logprob: float | None
    top: Sequence[tuple[int, float]]


@dataclass
class Piece:
    """What one step adds to a text.

    Attributes:
        index: which text of the request.
        text: may be empty.
        tokens: with `top_logprobs` only.
        finish: "stop" (end of the document, or a text of `stop`) or "length" in the last piece.
        error: why the text cannot go on.
    """

    index: int
    text: str = ""
    tokens: list[TokenInfo] = field(default_factory=list)
    finish: str | None = None
    error: JielongError | None = None


@dataclass(frozen=True)
class TextRequest:
    """One text to continue.

    Attributes:
        ids: the tokens to continue, not empty.
        hidden: how many of them, at the beginning, the client did not send: bos.
        max_tokens: most tokens to write; 0 only reads `ids`.
        sampling: how tokens are drawn.
        stop: texts before the first of which to stop.
        stop_at_eos: whether the end of the document ends the text; otherwise it is never drawn.
        echo: whether the text begins with the prompt.
        top_logprobs: how many of the likeliest tokens to tell for each; None tells no
            probabilities.
    """

    ids: list[int]
    hidden: int
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    stop_at_eos: bool = True
    echo: bool = False
    top_logprobs: int | None = None


class Job:
    """The texts of one request.

    Args:
        texts: what to continue.
        put: called with each piece, on the thread of the engine.
        stream: whether pieces come as they are written; otherwise one for each text, at its end.
    """

    def __init__(
        self, texts: Sequence[TextRequest], put: Callable[[Piece], None], stream: bool
    ) -> None:
        self.texts, self.put, self.stream = texts, put, stream
        self.unfinished = len(texts)
        self.generated = 0  # tokens of all texts
        self.cancelled = False
        self.submitted_s = time.monotonic()
        self.first_token_s: float | None = None


class Row:
    """The state of one text, as `TextGenerator.stream` would have it.

    Attributes:
        context: ids that the model sees; the first `length` of them are in the cache.
        cache: its part of the KV cache, given by the lane that it is in.
        remaining: tokens that may still be written.
        packed: whether half-precision weights are used after the first token, by the rule of
            `TextGenerator.stream`.
        group: texts of equal groups can be drawn together.
    """

    def __init__(
        self, job: Job, index: int, request: TextRequest, tokenizer: Tokenizer, device: torch.device
    ) -> None:
        self.job, self.index, self.request, self.tokenizer = job, index, request, tokenizer
        self.context = list(request.ids)
        self.cache: CacheSlot
        self.remaining = request.max_tokens
        self.started = False
        sampling = request.sampling
        self.generator = new_generator(sampling.seed, device)
        self.packed = request.max_tokens >= MIN_TOKENS_TO_PACK and not sampling.greedy
        self.group = dataclasses.replace(sampling, seed=None), request.stop_at_eos
        self._stream = tokenizer.stream(skip_special=True)
        for token in request.ids[-PRIMED_TOKENS:]:
            self._stream.push(token)
        self._stop = StopFilter(request.stop)
        self._held = Piece(index)  # not handed on yet
        self._characters = 0  # of the text, also those that are held back
        self._handed_on_s = -math.inf

    @property
    def length(self) -> int:
        return self.cache.length

    def echo(self, infos: Sequence[Info]) -> None:
        """Begin the text with its prompt.

        Args:
            infos: of each token of the prompt but the first, its log-probability and the likeliest
                tokens there; empty if they are not asked for.
        """
        shown = self.request.ids[self.request.hidden :]
        stream = self.tokenizer.stream()
        for position, token in enumerate(shown, self.request.hidden):
            if self.request.top_logprobs is not None:
                logprob, top = infos[position - 1] if position else (None, ())
                self._held.tokens.append(TokenInfo(token, self._characters, logprob, top))
            self._show(stream.push(token))
        self._show(stream.flush())

    def write(self, token: int, eos: int | None, info: Callable[[int], Info]) -> None:
        """Take the next token.

        Args:
            token: its id.
            eos: the id that ends a document.
            info: returns the token's log-probability and so many of the likeliest tokens.
        """
        self.started = True
        self.context.append(token)
        if token == eos:
            return self.end("stop")
        self.job.generated += 1
        self.remaining -= 1
        if self.request.top_logprobs is not None:
            self._held.tokens.append(
                TokenInfo(token, self._characters, *info(self.request.top_logprobs))
            )
        self._add(self._stream.push(token))
        if self._stop.ended:
            return self._finish("stop")
        if not self.remaining:
            return self.end("length")
        if self.job.stream and (self._held.text or self._held.tokens):
            now = time.monotonic()
            if now - self._handed_on_s >= PIECE_S:
                self._handed_on_s = now
                self._hand_on()
        return None

    def end(self, finish: str) -> None:
        """End the text; show what was held back."""
        self._add(self._stream.flush())
        self._held.text += self._stop.flush()
        self._finish("stop" if self._stop.ended else finish)

    def fail(self, error: JielongError) -> None:
        """End the text with an error."""
        self.remaining = 0
        self.job.put(Piece(self.index, error=error))

    def _add(self, text: str) -> None:
        self._characters += len(text)
        self._held.text += self._stop.push(text)

    def _show(self, text: str) -> None:
        self._characters += len(text)
        self._held.text += text

    def _finish(self, finish: str) -> None:
        self.remaining = 0
        self._held.finish = finish
        self._hand_on()

    def _hand_on(self) -> None:
        piece, self._held = self._held, Piece(self.index)
        self.job.put(piece)
