"""How well a model predicts held-out text: loss per token, perplexity, bits per byte.

Every token of a text is predicted exactly once, including eos, since a model must know where to
stop. Padding does not count. bos is given, never predicted. Without a bos token the first token of
a text is not predicted, and its bytes do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.batches import Batches
from jielong.data.windows import Stream
from jielong.errors import DataError
from jielong.evaluation.sums import Likelihood, Sums
from jielong.runtime.device import fast_products
from jielong.tokenization.tokenizer import Tokenizer

ENCODE_CHARS = 2**20  # most characters encoded at once
ENCODE_TEXTS = 1024  # most texts encoded at once
BATCHES_TO_COMPARE = 16  # of each rank, at least
BUFFERED_BATCHES = 16  # batches of windows sorted by length together, to reduce padding


class HeldOutStream(Stream, Protocol):
    """A prepared split that knows how many bytes of text it was made from."""

    @property
    def text_bytes(self) -> int: ...


@dataclass(frozen=True)
class EvaluationWindows:
    """Which windows of a stream are evaluated, and how many at once.

    Attributes:
        seq_len: tokens per window.
        batch_size: most windows in a forward pass of one rank.
        max_tokens: about how many tokens to evaluate, in evenly spaced windows; None means all.
    """

    seq_len: int
    batch_size: int
    max_tokens: int | None = None


@dataclass(frozen=True)
class Share:
    """This rank's share of an evaluation; by default a single process does everything.

    Attributes:
        rank: this process among `world_size`.
        world_size: number of processes.
        sum: returns the sum of a number over all ranks.
        beat: is called with each batch, since a rank that goes on does not hang.
    """

    rank: int = 0
    world_size: int = 1
    sum: Callable[[float], float] = float
    beat: Callable[[], None] = lambda: None


WHOLE = Share()


def evaluate_documents(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    max_len: int,
    batch_tokens: int = 2**13,
) -> Likelihood:
    """Evaluate texts, each as one document: bos + tokens + eos, as in training.

    A document longer than `max_len` is cut into windows with disjoint inputs. Each window begins
    with the last target of the window before it and does not see earlier tokens. Memory is bounded
    by the longest text, not by the number of texts.

    Args:
        model: called as model(tokens, targets=targets).loss, the summed nats; on any device.
        tokenizer: the tokenizer the model was trained with.
        texts: empty texts are skipped.
        max_len: most tokens in a window.
        batch_tokens: most tokens in a forward pass, padding included; at least one window.

    Raises:
        DataError: there is nothing to predict, or a text contains a lone surrogate.
    """
    started, device = time.perf_counter(), _device(model)
    sums, token_bytes = Sums(), tokenizer.token_bytes()
    documents = _Documents(tokenizer, texts)
    with _evaluating(model):
        for rows in _batches(_windows(documents, max_len), batch_tokens):
            inputs, targets = _padded(rows)
            nats = _summed_nats(model, inputs, targets, None, device)
            sums.add(nats, targets[targets != IGNORE_INDEX].numpy(), token_bytes)
    if not sums.tokens:
        raise DataError("nothing to evaluate: the data contains no text")
    return sums.likelihood(documents.bytes, started)


def evaluate_stream(
    model: nn.Module,
    stream: HeldOutStream,
    token_bytes: np.ndarray,
    windows: EvaluationWindows,
    share: Share = WHOLE,
    autocast: AbstractContextManager[object] | None = None,
) -> Likelihood:
    """Evaluate a prepared stream of documents in fixed windows, without randomness.

    Window i predicts tokens i·seq_len + 1 … (i + 1)·seq_len of the stream. Each token is predicted
    from the tokens before it in the same window and document, so the rest of a text that a window
    border cuts is predicted without its beginning. All ranks run the same number of batches of the
    same shape, so that no rank waits in a collective.

    Args:
        model: called as model(tokens, targets=…, document_ids=…).loss, the summed nats; the
            document ids are on the CPU.
        stream: the held-out split.
        token_bytes: (V,), bytes of text that each token encodes.
        windows: which windows are evaluated.
        share: the part that this rank evaluates.
        autocast: entered once around the whole evaluation.

    Raises:
        DataError: the stream has no token to predict.
    """
    started, device = time.perf_counter(), _device(model)
    data = DataConfig(max_seq_len=windows.seq_len, packing="pack", document_mask=True)
    batches = Batches(stream, data, TrainingConfig(global_batch_size=windows.batch_size))
    chosen = _evenly_spaced(batches.windows, windows)
    # not all at once, so that batches can be compared
    at_most = -(-len(chosen) // (share.world_size * BATCHES_TO_COMPARE))
    batch_size = max(1, min(windows.batch_size, at_most))
    sums = Sums()
    with _evaluating(model), autocast or nullcontext():
        for first in range(0, len(chosen), batch_size * share.world_size):
            share.beat()
            start = first + share.rank * batch_size
            own = chosen[start : start + batch_size]
            batch = batches.load(np.resize(own if len(own) else chosen[:1], batch_size))
            batch.targets[len(own) :] = IGNORE_INDEX  # repeated rows that fill the batch
            nats = _summed_nats(model, batch.tokens, batch.targets, batch.document_ids, device)
            sums.add(nats, batch.targets[batch.targets != IGNORE_INDEX].numpy(), token_bytes)
    sums = sums.over_ranks(share.sum)
    if not sums.tokens:
        raise DataError("nothing to evaluate: the held-out split has no token to predict")
    begins_with_bos = not token_bytes[stream.read(0, 1)].any()
    text_bytes = sums.bytes
    if len(chosen) == batches.windows and begins_with_bos:
        text_bytes = stream.text_bytes  # exact even if the tokenizer normalises the text
    return sums.likelihood(int(text_bytes), started)


class _Documents:
    """Encodes texts, a bounded amount at a time, and counts the bytes to be predicted."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        self.tokenizer, self.texts, self.bytes = tokenizer, texts, 0
        self.start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self.end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        self.token_bytes = tokenizer.token_bytes()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the ids (n,) int64 of each text that is not empty."""
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
    """Yield rows of 2 … max_len + 1 ids: row[:-1] are inputs, row[1:] targets."""
    for ids in documents:
        for start in range(0, len(ids) - 1, max_len):
            yield ids[start : start + max_len + 1]


def _batches(rows: Iterable[np.ndarray], batch_tokens: int) -> Iterator[list[np.ndarray]]:
    """Yield batches of at most `batch_tokens`, padding included, but of at least one row."""
    rows = iter(rows)
    while True:
        buffer: list[np.ndarray] = []
        buffered_tokens = 0
        for row in rows:
            buffer.append(row)
            buffered_tokens += len(row)
            if buffered_tokens >= BUFFERED_BATCHES * batch_tokens:
                break
        if not buffer:
            return
        buffer.sort(key=len, reverse=True)
        while buffer:
            count = max(1, batch_tokens // (len(buffer[0]) - 1))  # the longest comes first
            yield buffer[:count]
            del buffer[:count]


def _padded(rows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (B, T), padded at the end, where no token attends to it."""
    shape = len(rows), max(len(row) for row in rows) - 1
    inputs = torch.zeros(shape, dtype=torch.int64)
    targets = torch.full(shape, IGNORE_INDEX)
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


def _evenly_spaced(total: int, windows: EvaluationWindows) -> np.ndarray:
    """Return the indices of the windows to evaluate: all, or enough for `max_tokens`."""
    count = total
    if windows.max_tokens is not None:
        count = min(total, max(1, -(-windows.max_tokens // windows.seq_len)))
    return np.arange(count) * total // count


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), fast_products():
            yield
    finally:
        model.train(was_training)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
