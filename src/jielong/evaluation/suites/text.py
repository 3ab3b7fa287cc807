"""Suite `text`: bits per byte of each kind of text.

A folder of named texts, each file or folder in it one kind; or, without a path, the run's held-out
text. Bits per byte compare across tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jielong.data.sources.documents import DocumentTexts, Source, expand_sources
from jielong.errors import DataError
from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.scoring import Row
from jielong.evaluation.suites.subject import Options, Subject, documents

ERROR_OVER = "documents"
TEXT_FIELD = "text"


def measure(subject: Subject, options: Options) -> tuple[list[Ratio], list[str]]:
    """Return the bits per byte of each kind.

    Raises:
        DataError: there is no text, or it cannot be read.
    """
    if options.path is None:
        return [_of_held_out(subject, options)], []
    found, notes = [], []
    for name, sources in _kinds(Path(options.path)).items():
        texts = DocumentTexts(sources, TEXT_FIELD)
        with texts.checked(False):
            chosen = spread_of(texts, options.limit)
        notes += texts.losses.lines()
        if not chosen:
            raise DataError(f"{sources[0].name}: no text in it")
        sizes = np.array([len(text.encode()) for text in chosen], dtype=float)
        found.append(_bits_per_byte(subject, name, map(subject.document, chosen), sizes))
    return found, notes


def spread_of(texts: Iterable[str], limit: int) -> list[str]:
    """Return at most `limit` texts, evenly spread; memory holds at most twice as many."""
    kept: list[str] = []
    every = 1
    for number, text in enumerate(filter(None, texts)):
        if number % every:
            continue
        kept.append(text)
        if limit and len(kept) == 2 * limit:
            kept, every = kept[::2], 2 * every
    return [kept[i] for i in Options(limit).spread(len(kept))]


def _kinds(path: Path) -> dict[str, list[Source]]:
    """Return the files of each kind of text at a path."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give --suite-path a folder of texts")
    if path.is_file():
        return {path.name.split(".")[0]: expand_sources([str(path)])}
    kinds: dict[str, list[Source]] = {}
    for source in expand_sources([str(path)]):  # without licences and the like
        assert source.path is not None
        place = source.path.relative_to(path).parts
        name = place[0] if len(place) > 1 else place[0].split(".")[0]
        kinds.setdefault(name, []).append(source)
    return kinds


def _of_held_out(subject: Subject, options: Options) -> Ratio:
    every = documents(subject.need_held_out("text"), subject.tokenizer, least=1)
    chosen = [every[i].ids for i in options.spread(len(every))]
    token_bytes, tokenizer = subject.tokenizer.token_bytes(), subject.tokenizer
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    sizes = np.array([token_bytes[ids].sum() for ids in chosen], dtype=float)
    ids = (np.array([*begin, *ids, *end], dtype=np.int64) for ids in chosen)
    return _bits_per_byte(subject, "held-out", ids, sizes)


def _bits_per_byte(
    subject: Subject, name: str, ids: Iterable[np.ndarray], sizes: np.ndarray
) -> Ratio:
    """Measure documents, of (n,) ids and (documents,) bytes; each window begins without context."""
    rows, of = [], []
    for number, document in enumerate(ids):
        if subject.tokenizer.bos_id is None:  # the first token is given
            sizes[number] -= subject.tokenizer.token_bytes()[document[0]]
        for start in range(0, len(document) - 1, subject.context):
            rows.append(Row(document[start : start + subject.context + 1], 1))
            of.append(number)
    tops = {}
    for who, scorer in subject.scorers.items():
        nats = np.array([scored.nats.sum() for scored in scorer.score(rows)])
        tops[who] = np.bincount(of, weights=nats, minlength=len(sizes)) / math.log(2)
    return Ratio(name, "bits/byte", tops, sizes)
