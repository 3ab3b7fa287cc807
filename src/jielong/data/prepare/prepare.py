"""Documents → tokens: streams the text through the tokenizer into a dataset folder.

The folder is written atomically. The same text, settings and tokenizer give the same bytes.
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

from jielong.config.settings import Config
from jielong.data.prepare.left_out import LeftOut, check_again
from jielong.data.prepare.near_copies import NearCopies
from jielong.data.prepare.provenance import (
    SOURCES,
    Sources,
    changes_since,
    dataset_settings,
    provenance,
    source_summaries,
    warn_of_same_text,
)
from jielong.data.prepare.report import PrepareReport, describe
from jielong.data.prepare.small_split import Split
from jielong.data.prepare.split import (
    DistinctSample,
    EncodedDocuments,
    text_hash,
)
from jielong.data.prepare.text_marks import TextMarks
from jielong.data.shard_writer import ShardWriter
from jielong.data.shards import (
    FORMAT,
    MANIFEST,
    fingerprint_of,
    mark_verified,
    open_dataset,
    token_dtype,
    verify_dataset,
)
from jielong.data.sources.documents import BadLine, Document, Item, read_documents
from jielong.data.sources.items import NO_TOKENS
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError
from jielong.runtime.atomic import atomic_folder
from jielong.tokenization.chat import Chat
from jielong.tokenization.tokenizer import Tokenizer

BATCH_CHARS = 2**20  # text encoded together: enough for all cores, little for memory
BATCH_DOCUMENTS = 2**16  # bounds the overhead of many short documents
BATCHES_AHEAD = 2
PROGRESS_S = 5.0


def prepare(
    config: Config,
    tokenizer: Tokenizer,
    out_dir: Path,
    log: Callable[[str], None] = lambda line: None,
    sources: Sources | None = None,
) -> PrepareReport:
    """Prepare the dataset of `config.data` in `out_dir`, or reuse the one already there.

    What is left out is listed in the folder's `bad-lines.jsonl`; with `strict` it is an error.

    Args:
        log: called with progress lines.
        sources: those of `config.data`, where they have been found, and warned of, already.

    Raises:
        DataError: the text cannot be read or is empty, a fifth of it or more would be left out
            without `allow_loss`, or `out_dir` holds something else.
    """
    out_dir = Path(out_dir)
    if sources is None:
        sources = Sources.of(config.data)
        warn_of_same_text(sources, log)
    wanted = provenance(config, tokenizer, sources)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        return _reused(config, tokenizer, out_dir, wanted, sources)
    with atomic_folder(out_dir) as folder:
        manifest = _write_splits(config, tokenizer, sources, folder, log)
        _write_json(folder / MANIFEST, manifest)
        _write_json(folder / SOURCES, wanted)
        tokenizer.save(folder / "tokenizer")
        mark_verified(folder, manifest)  # each file was hashed as it was written
    dataset = open_dataset(out_dir, verify=False)
    return describe(dataset, tokenizer, config.data.max_seq_len, sources)


def _reused(
    config: Config, tokenizer: Tokenizer, out_dir: Path, wanted: dict[str, Any], sources: Sources
) -> PrepareReport:
    """Report on the dataset already in `out_dir`, after checking that it is the wanted one."""
    if not (out_dir / MANIFEST).is_file():
        raise DataError(f"{out_dir}: exists but is not a dataset: choose another --out-dir")
    verify_dataset(out_dir)
    dataset = open_dataset(out_dir, verify=False)
    if found := changes_since(out_dir, wanted):
        raise DataError(
            f"{out_dir}: holds another dataset: {'; '.join(found[:5])}: "
            "choose another --out-dir, or delete it"
        )
    check_again(out_dir, dataset.manifest, config.data.strict, config.data.allow_loss)
    return describe(dataset, tokenizer, config.data.max_seq_len, sources, reused=True)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_splits(
    config: Config,
    tokenizer: Tokenizer,
    sources: Sources,
    folder: Path,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Write tokens and document offsets of both splits; return the manifest."""
    data, vocab_size = config.data, tokenizer.vocab_size
    train, validation = (ShardWriter(folder, name, vocab_size) for name in ("train", "validation"))
    left_out = LeftOut(folder, data.strict, data.allow_loss)
    encoder = _Encoder(tokenizer, left_out, log)
    texts = RowText.of_settings(data, Chat(tokenizer))
    reading = texts, data.encoding, Splitting.of(data)
    distinct, held_out, shared = DistinctSample(), DistinctSample(), 0.0
    near = NearCopies(vocab_size)
    if sources.validation:
        items = read_documents(sources.validation, *reading)
        for documents in encoder.run("validation", items):
            distinct.add(documents.hashes)
            held_out.add(documents.hashes)
            documents.write(validation)
        if not validation.documents:
            raise DataError("no usable text in data.validation_path" + left_out.summary())
    share = dataset_settings(config)["validation_fraction"]
    text_bytes = sum(source.size or 0 for source in sources.data)
    split = Split(train, validation, share, tokenizer.token_bytes(), text_bytes)
    items = read_documents(sources.data, *reading)
    for documents in encoder.run("data", items):
        distinct.add(documents.hashes)
        near.add(documents)
        shared += held_out.count_in(documents.hashes)
        split.add(documents)
    split.finish()
    if not train.documents:
        raise DataError("no usable text to train on" + left_out.summary())
    left_out.close()
    counts = {
        "bad_lines": left_out.count,
        "duplicate_share": distinct.duplicate_share,
        "duplicates_exact": distinct.exact,
        "near_duplicate_share": near.share,
        "shared_documents": round(shared),
        "marked_documents": encoder.had_bos_or_eos,
        "held_out_pieces": split.pieces,
        "too_small_to_hold_out": split.too_small,
        "documents": encoder.documents,
        **encoder.marks.counts(),
    }
    writers = {"train": train, "validation": validation}
    manifest = _manifest(config, tokenizer, sources, writers, counts)
    return manifest | {"left_out": left_out.record()}


def _manifest(
    config: Config,
    tokenizer: Tokenizer,
    sources: Sources,
    writers: dict[str, ShardWriter],
    counts: dict[str, Any],
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
        "settings": dataset_settings(config),
        "sources": {  # no mtimes: copies of the files give the same dataset
            "data": source_summaries(sources.data),
            "validation": source_summaries(sources.validation),
        },
    }
    return {"fingerprint": fingerprint_of(manifest), **manifest}


class _Encoder:
    """Documents → batches of tokens with bos and eos. Reads ahead while the tokenizer works."""

    def __init__(self, tokenizer: Tokenizer, left_out: LeftOut, log: Callable[[str], None]) -> None:
        self.had_bos_or_eos = 0  # documents whose text already has bos or eos
        self.marks = TextMarks(tokenizer)
        self._tokenizer, self._left_out, self._log = tokenizer, left_out, log
        self.documents = self._bytes = 0
        self._start = self._logged = time.monotonic()

    def run(self, part: str, items: Iterable[Item]) -> Iterator[EncodedDocuments]:
        """Encode the documents among the items of a part of the dataset."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        try:
            ahead: deque[tuple[list[Document], np.ndarray, np.ndarray, Future[Any]]] = deque()
            for batch in self._batches(self._left_out.documents(part, items)):
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
        finally:  # on Ctrl-C, drop the queued batches
            pool.shutdown(cancel_futures=True)

    def _batches(self, documents: Iterable[Document]) -> Iterator[list[Document]]:
        batch: list[Document] = []
        chars = 0
        for document in documents:
            batch.append(document)
            chars += len(document.text)
            if chars >= BATCH_CHARS or len(batch) == BATCH_DOCUMENTS:
                yield batch
                batch, chars = [], 0
        if batch:
            yield batch

    def _finish(
        self, batch: list[Document], sizes: np.ndarray, hashes: np.ndarray, future: Future[Any]
    ) -> EncodedDocuments:
        tokens, lengths = future.result()
        self.marks.add(batch, tokens, lengths)
        kept = lengths > 0  # a tokenizer that strips control characters may return no tokens
        for i in np.flatnonzero(~kept):
            size = batch[i].size or int(sizes[i])
            place = batch[i].source, batch[i].line
            self._left_out.add_read(BadLine(*place, "the text has no tokens", NO_TOKENS, size))
        lengths = lengths[kept]
        tokens, lengths, had_one = _add_bos_eos(tokens, lengths, self._tokenizer)
        self.had_bos_or_eos += had_one
        self.documents += len(lengths)
        self._bytes += int(sizes.sum())
        now = time.monotonic()
        if now - self._logged >= PROGRESS_S:
            self._logged = now
            rate = self._bytes / 1e6 / (now - self._start)
            self._log(
                f"prepared {self.documents:,} documents, {self._bytes / 1e6:,.0f} MB "
                f"({rate:.1f} MB/s)"
            )
        return EncodedDocuments(tokens, lengths, sizes[kept], hashes[kept])


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
