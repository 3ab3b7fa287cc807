"""Documents → batches of tokens with bos and eos, in the order of the text.

What a batch holds does not depend on where batches begin and end: the same text gives the same
dataset, whether one process reads it or many do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jielong.data.prepare.split import EncodedDocuments, text_hash
from jielong.data.prepare.text_marks import MarkCounts, TextMarks
from jielong.data.sources.items import NO_TOKENS, BadLine, Document, Item, Remark
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer

BATCH_CHARS = 2**20  # text encoded together: enough for all cores, little for memory
BATCH_ITEMS = 2**16  # bounds the overhead of many short documents
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class EncodedBatch:
    """Documents that follow each other, encoded, and what was found between them.

    Attributes:
        found: what was left out, and remarks, each with the bytes of the documents before it.
        read_bytes: bytes of the documents after the last of `found`.
        marked: documents whose text already has bos or eos.
        marks: of the texts.
        error: what ended the reading after these documents.
        done: share of the text that is read, where it is known.
    """

    documents: EncodedDocuments
    found: list[tuple[int, BadLine | Remark]]
    read_bytes: int
    marked: int
    marks: MarkCounts
    error: DataError | None = None
    done: float | None = None


@dataclass
class _Read:
    """Items that follow each other."""

    items: list[Item] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    error: DataError | None = None


def encode_batches(
    items: Iterable[Item], tokenizer: Tokenizer, ahead: int = BATCHES_AHEAD
) -> Iterator[EncodedBatch]:
    """Encode the documents among the items.

    Args:
        ahead: batches that are read while the tokenizer works.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
    marks = TextMarks(tokenizer)
    try:
        waiting: deque[tuple[_Read, np.ndarray, np.ndarray, Future[Any]]] = deque()
        for read in _batches(items):
            data = [document.text.encode() for document in read.documents]
            hashes = np.array([text_hash(text) for text in data], dtype=np.uint64)
            sizes = np.array([len(text) for text in data], dtype=np.int64)
            texts = [document.text for document in read.documents]
            future = pool.submit(tokenizer.encode_flat, texts)
            waiting.append((read, sizes, hashes, future))
            if len(waiting) > ahead:
                yield _encoded(*waiting.popleft(), tokenizer, marks)
        while waiting:
            yield _encoded(*waiting.popleft(), tokenizer, marks)
    finally:  # on Ctrl-C, drop the queued batches
        pool.shutdown(cancel_futures=True)


def _batches(items: Iterable[Item]) -> Iterator[_Read]:
    """Yield items in batches; an error of the reading comes after what was read before it."""
    read, chars = _Read(), 0
    try:
        for item in items:
            read.items.append(item)
            if isinstance(item, Document):
                read.documents.append(item)
                chars += len(item.text)
            if chars >= BATCH_CHARS or len(read.items) == BATCH_ITEMS:
                yield read
                read, chars = _Read(), 0
    except DataError as error:
        read.error = error
    if read.items or read.error is not None:
        yield read


def _encoded(
    read: _Read,
    sizes: np.ndarray,
    hashes: np.ndarray,
    future: Future[Any],
    tokenizer: Tokenizer,
    marks: TextMarks,
) -> EncodedBatch:
    tokens, lengths = future.result()
    counts = marks.count(read.documents, tokens, lengths)
    kept = lengths > 0  # a tokenizer that strips control characters may return no tokens
    found, rest = _found(read.items, sizes, kept)
    tokens, lengths, marked = _add_bos_eos(tokens, lengths[kept], tokenizer)
    documents = EncodedDocuments(tokens, lengths, sizes[kept], hashes[kept])
    return EncodedBatch(documents, found, rest, marked, counts, read.error)


def _found(
    items: list[Item], sizes: np.ndarray, kept: np.ndarray
) -> tuple[list[tuple[int, BadLine | Remark]], int]:
    """Return what is no document, each with the bytes of the documents before it; and the rest.

    Args:
        sizes: (documents,) bytes of the text of each document.
        kept: (documents,) which documents have tokens.
    """
    found: list[tuple[int, BadLine | Remark]] = []
    number = read = 0
    for item in items:
        if not isinstance(item, Document):
            found.append((read, item))
            read = 0
            continue
        size = item.size or int(sizes[number])
        read += size
        if not kept[number]:
            bad = BadLine(item.source, item.line, "the text has no tokens", NO_TOKENS, size)
            found.append((read, bad))
            read = 0
        number += 1
    return found, read


def _add_bos_eos(
    tokens: np.ndarray, lengths: np.ndarray, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, int]:
    """Add bos and eos to each document, unless its text already has them.

    Returns:
        The tokens, the new lengths, and the number of documents that already had bos or eos.
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    positions, values = [], []
    added, had_one = np.zeros_like(lengths), np.zeros(len(lengths), dtype=bool)
    # eos first: np.insert keeps this order where one document ends and the next begins
    specials = ((tokenizer.eos_id, ends, ends - 1), (tokenizer.bos_id, starts, starts))
    for token_id, insert_at, existing in specials:
        if token_id is not None:
            missing = tokens[existing] != token_id
            positions.append(insert_at[missing])
            values.append(np.full(missing.sum(), token_id, dtype=tokens.dtype))
            added += missing
            had_one |= ~missing
    if positions:
        tokens = np.insert(tokens, np.concatenate(positions), np.concatenate(values))
    return tokens, lengths + added, int(had_one.sum())
