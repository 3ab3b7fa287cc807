"""Held-out text that is trained on as well is told, also where it is cut in another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jielong
from cleaned_texts import prose, write_texts
from jielong.data.prepare import shared_text
from jielong.data.prepare.shared_text import SharedText
from jielong.data.prepare.split import EncodedDocuments

VOCABULARY = 1000


def encoded(documents: list[np.ndarray]) -> EncodedDocuments:
    lengths = np.array([len(document) for document in documents])
    tokens = np.concatenate(documents).astype(np.uint32)
    return EncodedDocuments(tokens, lengths, lengths, lengths.astype(np.uint64))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("sample", [2**16, 2**8])
def test_the_share_is_near_the_truth_also_in_a_sample(
    share: float, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_text, "SAMPLE", sample)
    rng = np.random.default_rng(0)
    held = [rng.integers(VOCABULARY, size=600) for _ in range(50)]
    other = [rng.integers(VOCABULARY, size=4000) for _ in range(10)]
    # one long document of parts of the held-out ones, each cut in the middle
    joined = np.concatenate([document[50 : 50 + round(550 * share)] for document in held])
    found = SharedText(VOCABULARY)
    for documents in (held[:25], held[25:]):
        found.hold_out(encoded(documents))
    for documents in (other, [joined]):
        found.train_on(encoded(documents))
    assert found.share == pytest.approx(550 / 600 * share, abs=0.08)


def test_documents_that_are_too_short_share_nothing() -> None:
    found = SharedText(VOCABULARY)
    found.train_on(encoded([np.arange(100)]))
    found.hold_out(encoded([np.arange(3), np.arange(5)]))
    found.train_on(encoded([np.arange(3), np.arange(100)]))
    assert found.share == 0.0


def test_held_out_text_cut_otherwise_is_told(tmp_path: Path, tokenizer_dir: Path) -> None:
    texts = [prose(number) for number in range(40)]
    (tmp_path / "train.txt").write_text("\n\n".join(texts), encoding="utf-8")
    paragraphs = [part for text in texts[::2] for part in text.split("\n\n")]
    again = write_texts(tmp_path, paragraphs, "again.jsonl")
    new = write_texts(tmp_path, [prose(number) for number in range(100, 120)], "new.jsonl")
    lines = {}
    for path in (again, new):
        report = jielong.prepare(
            tmp_path / "train.txt", tokenizer_dir, tmp_path / path.stem, validation_path=str(path)
        )
        lines[path] = "\n".join(report.lines())
        assert report.shared_documents == 0
    assert "of the held-out text also stands in the training text" in lines[again]
    assert "also stands in" not in lines[new]
