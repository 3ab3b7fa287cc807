"""How well a model predicts held-out text: loss per token, perplexity, bits per byte.

Every token of a text is predicted exactly once, the end-of-text token too, since a model must know
where to stop. Nothing padded counts. bos is given, never predicted; a tokenizer without bos leaves
a text's first token unpredicted, and then its bytes do not count either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from jielong.config.settings import IGNORED, DataConfig, TrainingConfig
from jielong.data.batches import Batches, Stream
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer

ENCODE_CHARS = 2**20  # text handed to the tokenizer at once
ENCODE_TEXTS = 1024
MAX_EXPONENT = 700.0  # exp of more overflows a float
BUFFERED_BATCHES = 16  # windows sorted by length together, so that a batch pads little


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of a text.

    Attributes:
        loss: mean negative log-likelihood of a predicted token, in nats.
        perplexity: exp(loss).
        bits_per_byte: total bits over UTF-8 bytes of text; comparable across tokenizers.
        tokens: predicted tokens.
        bytes: UTF-8 bytes of text that they stand for.
        seconds: wall-clock time.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int
    seconds: float


class HeldOut(Stream, Protocol):
    """A prepared split that knows how many bytes of text it was made from."""

    @property
    def text_bytes(self) -> int: ...


def evaluate_documents(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    max_len: int,
    batch_tokens: int = 2**13,
    autocast: AbstractContextManager[object] | None = None,
) -> Likelihood:
    """Likelihood of texts, each a document of its own: bos + tokens + eos, as in training.

    A document longer than `max_len` is cut into windows whose inputs do not overlap: each begins
    with the token that the one before predicted last, and sees nothing earlier. Memory stays
    bounded by the longest text, however many there are.

    Args:
        model: called as model(tokens, targets=targets).loss, the summed nats; on any device.
        tokenizer: the one that the model was trained with.
        texts: empty ones are skipped.
        max_len: most tokens the model reads at once.
        batch_tokens: tokens in a forward pass, padding included; one window at least.
        autocast: entered once around the whole evaluation.

    Raises:
        DataError: there is nothing to predict, or a text holds a lone surrogate.
    """
    started, device = time.perf_counter(), _device(model)
    nats, tokens = 0.0, 0
    documents = _Documents(tokenizer, texts)
    with _evaluating(model), autocast or nullcontext():
        for rows in _batches(_windows(documents, max_len), batch_tokens):
            inputs, targets = _padded(rows)
            nats += _summed_nats(model, inputs, targets, None, device)
            tokens += sum(len(row) - 1 for row in rows)
    if not tokens:
        raise DataError("nothing to evaluate: the data holds no text")
    return _likelihood(nats, tokens, documents.bytes, started)


def evaluate_stream(
    model: nn.Module,
    stream: HeldOut,
    seq_len: int,
    batch_size: int,
    token_bytes: np.ndarray,
    max_tokens: int | None = None,
    autocast: AbstractContextManager[object] | None = None,
    rank: int = 0,
    world_size: int = 1,
    sum_over_ranks: Callable[[float], float] = float,
) -> Likelihood:
    """Likelihood of a prepared stream of documents, in fixed windows; draws nothing random.

    Window i predicts tokens i·seq_len + 1 … (i + 1)·seq_len of the stream, each from those before
    it in the window and its document; so a text cut by a window's border goes on without its
    beginning. All ranks run equally many batches of one shape, so that collectives meet.

    Args:
        model: called as model(tokens, targets=…, document_ids=…).loss, the summed nats; the ids
            come on the CPU.
        stream: the held-out split.
        seq_len: tokens in a window.
        batch_size: most windows in one rank's forward pass.
        token_bytes: (V,) bytes of text that each token stands for.
        max_tokens: about how much of the stream to take, in windows spread evenly over it; None
            takes all.
        autocast: entered once around the whole evaluation.
        rank, world_size: this process takes its share of each batch.
        sum_over_ranks: the sum of a number over the ranks.

    Raises:
        DataError: the stream has no token to predict.
    """
    started, device = time.perf_counter(), _device(model)
    data = DataConfig(max_seq_len=seq_len, packing="pack", document_mask=True)
    batches = Batches(stream, data, TrainingConfig(batch_size=batch_size))
    windows = _spread(batches.windows, seq_len, max_tokens)
    batch_size = max(1, min(batch_size, -(-len(windows) // world_size)))
    nats, tokens, text_bytes = 0.0, 0.0, 0.0
    with _evaluating(model), autocast or nullcontext():
        for first in range(0, len(windows), batch_size * world_size):
            start = first + rank * batch_size
            share = windows[start : start + batch_size]
            batch = batches.load(np.resize(share if len(share) else windows[:1], batch_size))
            batch.targets[len(share) :] = IGNORED  # rows that only fill the batch up
            nats += _summed_nats(model, batch.tokens, batch.targets, batch.document_ids, device)
            predicted = batch.targets[batch.targets != IGNORED].numpy()
            tokens += len(predicted)
            text_bytes += int(token_bytes[predicted].sum())
    nats, tokens, text_bytes = (sum_over_ranks(value) for value in (nats, tokens, text_bytes))
    if not tokens:
        raise DataError("nothing to evaluate: the held-out split has no token to predict")
    begins_with_bos = not token_bytes[stream.read(0, 1)].any()
    if len(windows) == batches.windows and begins_with_bos:
        text_bytes = stream.text_bytes  # exact even where the tokenizer normalises the text
    return _likelihood(nats, int(tokens), int(text_bytes), started)


class _Documents:
    """Token ids of texts, a bounded amount encoded at a time; counts the bytes to be predicted."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        self.tokenizer, self.texts, self.bytes = tokenizer, texts, 0
        self.start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self.end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        self.token_bytes = tokenizer.token_bytes()

    def __iter__(self) -> Iterator[np.ndarray]:
        """(n,) int64 of each text that is not empty."""
        pending: list[str] = []
        chars = 0
        for number, text in enumerate(self.texts, start=1):
            if not text:
                continue
            try:
                self.bytes += len(text.encode())
            except UnicodeEncodeError:
                raise DataError(f"text {number} is not valid Unicode: a lone surrogate") from None
            pending.append(text)
            chars += len(text)
            if chars >= ENCODE_CHARS or len(pending) == ENCODE_TEXTS:
                yield from self._encode(pending)
                pending, chars = [], 0
        yield from self._encode(pending)

    def _encode(self, texts: list[str]) -> Iterator[np.ndarray]:
        for ids in self.tokenizer.encode_batch(texts):
            if not self.start and len(ids):
                self.bytes -= int(self.token_bytes[ids[0]])
            yield np.concatenate([self.start, ids, self.end]).astype(np.int64)


def _windows(documents: Iterable[np.ndarray], max_len: int) -> Iterator[np.ndarray]:
    """Rows of 2 … max_len + 1 ids: inputs row[:-1], targets row[1:]; they share one id."""
    for ids in documents:
        for start in range(0, len(ids) - 1, max_len):
            yield ids[start : start + max_len + 1]


def _batches(rows: Iterable[np.ndarray], batch_tokens: int) -> Iterator[list[np.ndarray]]:
    """Rows in batches of at most `batch_tokens`, padding included, or of a single row."""
    rows = iter(rows)
    while True:
        buffer: list[np.ndarray] = []
        held = 0
        for row in rows:
            buffer.append(row)
            held += len(row)
            if held >= BUFFERED_BATCHES * batch_tokens:
                break
        if not buffer:
            return
        buffer.sort(key=len, reverse=True)
        while buffer:
            count = max(1, batch_tokens // (len(buffer[0]) - 1))  # the longest comes first
            yield buffer[:count]
            del buffer[:count]


def _padded(rows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T); what follows a row's end is seen by none of its tokens."""
    shape = len(rows), max(len(row) for row in rows) - 1
    inputs = torch.zeros(shape, dtype=torch.int64)
    targets = torch.full(shape, IGNORED)
    for i, row in enumerate(rows):
        inputs[i, : len(row) - 1] = torch.from_numpy(row[:-1])
        targets[i, : len(row) - 1] = torch.from_numpy(row[1:])
    return inputs, targets


def _summed_nats(
    model: nn.Module,
    tokens: Tensor,
    targets: Tensor,
    document_ids: Tensor | None,
    device: torch.device,
) -> float:
    output = model(tokens.to(device), targets=targets.to(device), document_ids=document_ids)
    return float(output.loss)


def _spread(windows: int, seq_len: int, max_tokens: int | None) -> np.ndarray:
    """Indices of the windows to take: all, or as many as hold max_tokens, evenly apart."""
    wanted = windows if max_tokens is None else min(windows, max(1, -(-max_tokens // seq_len)))
    return np.arange(wanted) * windows // wanted


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _likelihood(nats: float, tokens: int, text_bytes: int, started: float) -> Likelihood:
    loss = nats / tokens
    return Likelihood(
        loss=loss,
        perplexity=math.exp(loss) if loss < MAX_EXPONENT else math.inf,
        bits_per_byte=nats / math.log(2) / text_bytes if text_bytes else math.nan,
        tokens=tokens,
        bytes=text_bytes,
        seconds=time.perf_counter() - started,
    )
