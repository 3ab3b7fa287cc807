"""Documents → tokens, once: streams the text through the tokenizer into a dataset folder.

The folder appears whole or not at all: it is written under another name beside its place, synced,
and renamed. The same text, settings and tokenizer give the same bytes.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from jielong.config.settings import Config
from jielong.data.prepare.identity import SOURCES, described, differences, identity, settings
from jielong.data.prepare.report import PrepareReport, describe
from jielong.data.prepare.split import DistinctSample, Encoded, HeldOutSplit, text_hash
from jielong.data.shard_writer import HashedFile, ShardWriter
from jielong.data.shards import (
    FORMAT,
    MANIFEST,
    fingerprint_of,
    mark_verified,
    open_dataset,
    read_manifest,
    token_dtype,
    verify_dataset,
)
from jielong.data.sources.documents import BadLine, Document, Item, read_documents
from jielong.errors import DataError
from jielong.runtime.atomic import publishing
from jielong.tokenization.tokenizer import Tokenizer

BATCH_CHARS = 2**20  # text encoded together: bounds memory, feeds all cores
BATCH_DOCUMENTS = 2**16  # which take some memory each, however short
BATCHES_AHEAD = 2
PROGRESS_S = 5.0
BAD_LINES = "bad-lines.jsonl"

Progress = Callable[[str], None]


def prepare(
    config: Config, tokenizer: Tokenizer, out_dir: Path, progress: Progress = lambda line: None
) -> PrepareReport:
    """Makes the dataset of `config.data` in `out_dir`, or finds it made already.

    Bad lines are listed in `bad-lines.jsonl` of the folder, unless `strict` stops at the first.

    Raises:
        DataError: the text cannot be read or there is none, or `out_dir` holds something else.
    """
    out_dir = Path(out_dir)
    wanted = identity(config, tokenizer)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        return _reused(config, tokenizer, out_dir, wanted)
    with publishing(out_dir) as folder:
        manifest = _write_splits(config, tokenizer, folder, progress)
        _write_json(folder / MANIFEST, manifest)
        _write_json(folder / SOURCES, wanted)
        tokenizer.save(folder / "tokenizer")
        mark_verified(folder, manifest)  # each file was hashed as it was written
    return describe(open_dataset(out_dir, verify=False), tokenizer, config.data.max_seq_len)


def prepared_matches(config: Config, tokenizer: Tokenizer, folder: Path) -> bool:
    """Whether `folder` holds the dataset that `prepare` would make now."""
    try:
        read_manifest(folder)
    except DataError:
        return False
    return not differences(folder, identity(config, tokenizer))


def _reused(
    config: Config, tokenizer: Tokenizer, out_dir: Path, wanted: dict[str, Any]
) -> PrepareReport:
    """The report of the dataset that `out_dir` holds already, if it is the one wanted."""
    if not (out_dir / MANIFEST).is_file():
        raise DataError(f"{out_dir}: exists and holds no dataset: choose another --out-dir")
    verify_dataset(out_dir)
    dataset = open_dataset(out_dir, verify=False)
    if found := differences(out_dir, wanted):
        raise DataError(
            f"{out_dir}: holds another dataset: {'; '.join(found[:5])}: "
            "choose another --out-dir, or delete it"
        )
    if config.data.strict and dataset.manifest["counts"]["bad_lines"]:
        with (out_dir / BAD_LINES).open("rb") as file:
            raise _strict_error(BadLine(*orjson.loads(file.readline()).values()))
    return describe(dataset, tokenizer, config.data.max_seq_len, reused=True)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_splits(
    config: Config, tokenizer: Tokenizer, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Writes tokens and offsets of both splits; returns the manifest."""
    data, vocab_size = config.data, tokenizer.vocab_size
    train, validation = (ShardWriter(folder, name, vocab_size) for name in ("train", "validation"))
    bad = _BadLines(folder / BAD_LINES, data.strict)
    encoder = _Encoder(tokenizer, bad, progress)
    distinct, held_out, shared = DistinctSample(), DistinctSample(), 0.0
    if data.validation_path:
        for documents in encoder.run(read_documents(data.validation_path, data.text_field)):
            distinct.add(documents.hashes)
            held_out.add(documents.hashes)
            documents.write(validation)
    split = HeldOutSplit(train, validation, settings(config)["validation_fraction"])
    for documents in encoder.run(read_documents(data.data_path, data.text_field)):
        distinct.add(documents.hashes)
        shared += held_out.count_in(documents.hashes)
        split.add(documents)
    split.finish()
    bad.close()
    if not train.documents:
        raise DataError("there is no usable text to train on" + bad.summary())
    if data.validation_path and not validation.documents:
        raise DataError("there is no usable text in data.validation_path" + bad.summary())
    counts = {
        "bad_lines": bad.count,
        "duplicate_share": distinct.duplicate_share,
        "duplicates_exact": distinct.exact,
        "shared_documents": round(shared),
        "marked_documents": encoder.marked,
    }
    return _manifest(config, tokenizer, {"train": train, "validation": validation}, counts)


def _manifest(
    config: Config, tokenizer: Tokenizer, writers: dict[str, ShardWriter], counts: dict[str, Any]
) -> dict[str, Any]:
    splits, files = {}, {}
    for name, writer in writers.items():
        if writer.documents:
            splits[name], entries = writer.close()
            files.update(entries)
    manifest = {
        "format": FORMAT,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "special_ids": tokenizer.special_ids,
        "dtype": token_dtype(tokenizer.vocab_size).str,
        "splits": splits,
        "files": files,
        "counts": counts,
        "settings": settings(config),
        "sources": {  # no times: the same files elsewhere give the same dataset
            "data": described(config.data.data_path),
            "validation": described(config.data.validation_path),
        },
    }
    return {"fingerprint": fingerprint_of(manifest), **manifest}


class _Encoder:
    """Documents → batches of tokens, with bos and eos; reads ahead while the tokenizer works."""

    def __init__(self, tokenizer: Tokenizer, bad: _BadLines, progress: Progress) -> None:
        self.marked = 0  # documents that brought their own bos or eos
        self._tokenizer, self._bad, self._progress = tokenizer, bad, progress
        self._documents = self._bytes = 0
        self._start = self._told = time.monotonic()

    def run(self, items: Iterable[Item]) -> Iterator[Encoded]:
        pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        try:
            ahead: deque[tuple[list[Document], np.ndarray, np.ndarray, Future[Any]]] = deque()
            for batch in self._batches(items):
                data = [document.text.encode() for document in batch]
                hashes = np.array([text_hash(text) for text in data], dtype=np.uint64)
                sizes = np.array([len(text) for text in data], dtype=np.int64)
                texts = [document.text for document in batch]
                future = pool.submit(self._tokenizer.encode_flat, texts)
                ahead.append((batch, sizes, hashes, future))
                if len(ahead) > BATCHES_AHEAD:
                    yield self._finish(*ahead.popleft())
            while ahead:
                yield self._finish(*ahead.popleft())
        finally:  # after Ctrl-C nobody waits for what is queued
            pool.shutdown(cancel_futures=True)

    def _batches(self, items: Iterable[Item]) -> Iterator[list[Document]]:
        batch: list[Document] = []
        chars = 0
        for item in items:
            if isinstance(item, BadLine):
                self._bad.add(item)
                continue
            batch.append(item)
            chars += len(item.text)
            if chars >= BATCH_CHARS or len(batch) == BATCH_DOCUMENTS:
                yield batch
                batch, chars = [], 0
        if batch:
            yield batch

    def _finish(
        self, batch: list[Document], sizes: np.ndarray, hashes: np.ndarray, future: Future[Any]
    ) -> Encoded:
        tokens, lengths = future.result()
        kept = lengths > 0  # a tokenizer that strips control characters may leave nothing
        for i in np.flatnonzero(~kept):
            self._bad.add(BadLine(batch[i].source, batch[i].line, "the text has no tokens"))
        lengths = lengths[kept]
        tokens, lengths, marked = _with_marks(tokens, lengths, self._tokenizer)
        self.marked += marked
        self._documents += len(lengths)
        self._bytes += int(sizes.sum())
        now = time.monotonic()
        if now - self._told >= PROGRESS_S:
            self._told = now
            rate = self._bytes / 1e6 / (now - self._start)
            self._progress(
                f"prepared {self._documents:,} documents, {self._bytes / 1e6:,.0f} MB "
                f"({rate:.1f} MB/s)"
            )
        return Encoded(tokens, lengths, sizes[kept], hashes[kept])


def _with_marks(
    tokens: np.ndarray, lengths: np.ndarray, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, int]:
    """Puts bos before and eos behind each document, where the text has not brought them itself.

    Returns the tokens, the new lengths, and the number of documents that had a mark already.
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    places, values = [], []
    added, marked = np.zeros_like(lengths), np.zeros(len(lengths), dtype=bool)
    # eos first: where one document ends and the next begins, insertion keeps this order.
    marks = ((tokenizer.eos_id, ends, ends - 1), (tokenizer.bos_id, starts, starts))
    for mark, where, own in marks:
        if mark is not None:
            missing = tokens[own] != mark
            places.append(where[missing])
            values.append(np.full(missing.sum(), mark, dtype=tokens.dtype))
            added += missing
            marked |= ~missing
    if places:
        tokens = np.insert(tokens, np.concatenate(places), np.concatenate(values))
    return tokens, lengths + added, int(marked.sum())


class _BadLines:
    """Lists bad lines in a file that exists only if there are any; with `strict`, raises."""

    def __init__(self, path: Path, strict: bool) -> None:
        self.count = 0
        self._first: BadLine | None = None
        self._path, self._strict = path, strict
        self._file: HashedFile | None = None

    def add(self, bad: BadLine) -> None:
        if self._strict:
            raise _strict_error(bad)
        if self._file is None:
            self._file = HashedFile(self._path)
            self._first = bad
        self.count += 1
        row = {"file": bad.source, "line": bad.line, "reason": bad.reason}
        self._file.write(orjson.dumps(row) + b"\n")

    def summary(self) -> str:
        if self._first is None:
            return ": every source is empty"
        bad = self._first
        return f": {self.count:,} bad lines, the first {bad.source}:{bad.line}: {bad.reason}"

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _strict_error(bad: BadLine) -> DataError:
    return DataError(f"{bad.source}:{bad.line}: {bad.reason} (data.strict stops at the first)")
