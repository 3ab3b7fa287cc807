"""Documents → tokens: streams the text through the tokenizer into a dataset folder.

The folder is written atomically. The same text, settings and tokenizer give the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from jielong.config.engine import LOCAL, Engine
from jielong.config.settings import Config
from jielong.data.prepare.encoding import EncodedBatch
from jielong.data.prepare.engines import encoder
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
from jielong.data.prepare.shared_text import SharedText
from jielong.data.prepare.small_split import Split
from jielong.data.prepare.split import (
    DistinctSample,
    EncodedDocuments,
)
from jielong.data.prepare.text_marks import MarkCounts
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
from jielong.errors import DataError
from jielong.runtime.atomic import atomic_folder
from jielong.tokenization.tokenizer import Tokenizer

PROGRESS_S = 5.0


def prepare(
    config: Config,
    tokenizer: Tokenizer,
    out_dir: Path,
    log: Callable[[str], None] = lambda line: None,
    sources: Sources | None = None,
    engine: Engine = LOCAL,
) -> PrepareReport:
    """Prepare the dataset of `config.data` in `out_dir`, or reuse the one already there.

    What is left out is listed in the folder's `bad-lines.jsonl`; with `strict` it is an error.

    Args:
        log: called with progress lines.
        sources: those of `config.data`, where they have been found, and warned of, already.
        engine: where the text is read and encoded.

    Raises:
        ConfigError: the engine cannot be used.
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
        manifest = _write_splits(config, tokenizer, sources, folder, log, engine)
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
    engine: Engine,
) -> dict[str, Any]:
    """Write tokens and document offsets of both splits; return the manifest."""
    data, vocab_size = config.data, tokenizer.vocab_size
    train, validation = (ShardWriter(folder, name, vocab_size) for name in ("train", "validation"))
    left_out = LeftOut(folder, data.strict, data.allow_loss)
    account = _Account(left_out, log)
    distinct, held_out, shared = DistinctSample(), DistinctSample(), 0.0
    near, overlap = NearCopies(vocab_size), SharedText(vocab_size)
    with encoder(engine, data, tokenizer) as encoded:
        if sources.validation:
            for documents in account.take("validation", encoded(sources.validation)):
                distinct.add(documents.hashes)
                held_out.add(documents.hashes)
                overlap.hold_out(documents)
                documents.write(validation)
            if not validation.documents:
                raise DataError("no usable text in data.validation_path" + left_out.summary())
        share = dataset_settings(config)["validation_fraction"]
        text_bytes = sum(source.size or 0 for source in sources.data)
        split = Split(train, validation, share, tokenizer.token_bytes(), text_bytes)
        for documents in account.take("data", encoded(sources.data)):
            distinct.add(documents.hashes)
            near.add(documents)
            overlap.train_on(documents)
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
        "shared_text_share": overlap.share,
        "marked_documents": account.marked,
        "held_out_pieces": split.pieces,
        "too_small_to_hold_out": split.too_small,
        "documents": account.documents,
        **account.marks.record(),
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


class _Account:
    """What a preparation has encoded, and what it has left out, so far."""

    def __init__(self, left_out: LeftOut, log: Callable[[str], None]) -> None:
        self.documents = 0
        self.marked = 0  # documents whose text already has bos or eos
        self.marks = MarkCounts()
        self._left_out, self._log, self._bytes = left_out, log, 0
        self._begun = self._logged = time.monotonic()

    def take(self, part: str, batches: Iterable[EncodedBatch]) -> Iterator[EncodedDocuments]:
        """Begin the account of a part of the dataset, and yield its documents."""
        self._left_out.begin(part)
        begun = time.monotonic()
        for batch in batches:
            self._left_out.replay(batch.found, batch.read_bytes)
            if batch.error is not None:
                raise batch.error
            self.marks.add(batch.marks)
            self.marked += batch.marked
            self.documents += len(batch.documents)
            self._bytes += int(batch.documents.sizes.sum())
            self._log_progress(batch.done, begun)
            yield batch.documents

    def _log_progress(self, done: float | None, begun: float) -> None:
        now = time.monotonic()
        if now - self._logged < PROGRESS_S:
            return
        self._logged = now
        rate = self._bytes / 1e6 / (now - self._begun)
        left = ""
        if done:
            seconds = (now - begun) * (1 - done) / done
            left = f", {seconds / 60:,.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"
        self._log(
            f"prepared {self.documents:,} documents, {self._bytes / 1e6:,.0f} MB "
            f"({rate:.1f} MB/s{left})"
        )
