"""Who encodes the text of a dataset: this process, or the workers of Ray. The tokens are the same.

On Ray, a task reads and encodes a part of the sources (`sources/parts.py`). The parts are taken in
their order, and split and written by this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jielong.config.data import DataConfig
from jielong.config.engine import Engine
from jielong.data.prepare.encoding import EncodedBatch, encode_batches
from jielong.data.shards import token_dtype
from jielong.data.sources.documents import Source, read_documents, reading_of
from jielong.data.sources.items import Remark
from jielong.data.sources.parts import Part, PartEnd, PartReader
from jielong.data.sources.parts_on_ray import parts_on_ray
from jielong.data.sources.reading import Reading
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError
from jielong.runtime import ray_tasks
from jielong.tokenization.chat import Chat
from jielong.tokenization.tokenizer import Tokenizer

BatchesOf = Callable[[Sequence[Source]], Iterator[EncodedBatch]]


@contextlib.contextmanager
def encoder(engine: Engine, data: DataConfig, tokenizer: Tokenizer) -> Iterator[BatchesOf]:
    """Yield what encodes the documents of sources, in their order.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached.
    """
    how = RowText.of_settings(data, Chat(tokenizer)), data.encoding, Splitting.of(data)
    if not engine.is_ray:
        yield lambda sources: encode_batches(read_documents(sources, *how), tokenizer)
        return
    with ray_tasks.connected(engine.address):
        yield lambda sources: _encode_on_ray(sources, reading_of(sources, *how), tokenizer)


@dataclass(frozen=True)
class _Work:
    """What all tasks share."""

    tokenizer: Tokenizer
    reading: Reading
    alone: bool


def _encode_part(place: list[Any], part: Part, is_sure: bool) -> Iterator[EncodedBatch | PartEnd]:
    """Read and encode a part: the task of a worker."""
    work: _Work = ray_tasks.shared(place)
    reader = PartReader(part, work.reading, work.alone, is_sure)
    dtype = token_dtype(work.tokenizer.vocab_size)
    for batch in encode_batches(reader.items(), work.tokenizer, ahead=0):
        yield _small(batch, dtype)
    yield reader.end


def _small(batch: EncodedBatch, dtype: np.dtype[np.unsignedinteger]) -> EncodedBatch:
    """Return a batch as it is sent: its tokens in fewer bytes, if all are of the vocabulary."""
    documents, error = batch.documents, batch.error
    tokens = documents.tokens
    if not len(tokens) or tokens.max() <= np.iinfo(dtype).max:
        documents = dataclasses.replace(documents, tokens=tokens.astype(dtype))
    if error is not None:
        error = DataError(str(error))
    return dataclasses.replace(batch, documents=documents, error=error)


def _encode_on_ray(
    sources: Sequence[Source], reading: Reading, tokenizer: Tokenizer
) -> Iterator[EncodedBatch]:
    place = ray_tasks.share(_Work(tokenizer, reading, len(sources) == 1))
    total, done = sum(source.size or 0 for source in sources), 0
    empty = next(encode_batches([Remark("", "")], tokenizer))
    for part, order, results in parts_on_ray(_encode_part, place, sources, reading):
        done += part.size
        for result in results:
            if isinstance(result, PartEnd):
                result = dataclasses.replace(empty, found=[(0, r) for r in order.end(part, result)])
            found = [(size, order.placed(item)) for size, item in result.found]
            share = done / total if total else None
            yield dataclasses.replace(result, found=found, done=share)
