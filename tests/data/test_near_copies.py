"""The share of near copies that `prepare` prints: near the truth, from a bounded sample."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import jielong
from cleaned_texts import edited, prose, write_texts
from jielong.data.prepare import near_copies
from jielong.data.prepare.near_copies import NearCopies
from jielong.data.prepare.split import EncodedDocuments

VOCABULARY = 1000


def encoded(documents: list[np.ndarray]) -> EncodedDocuments:
    lengths = np.array([len(document) for document in documents])
    tokens = np.concatenate(documents).astype(np.uint32)
    return EncodedDocuments(tokens, lengths, lengths, lengths.astype(np.uint64))


def corpus(count: int, share: float, longest: int = 400) -> list[np.ndarray]:
    """Random documents, of which `share` repeat an earlier one with a fiftieth of it changed."""
    rng = np.random.default_rng(0)
    found: list[np.ndarray] = []
    while len(found) < count:
        tokens = rng.integers(VOCABULARY, size=rng.integers(50, longest))
        if found and rng.random() < share:
            tokens = found[rng.integers(len(found))].copy()
            begin, size = rng.integers(len(tokens)), len(tokens) // 50
            tokens[begin : begin + size] = rng.integers(VOCABULARY, size=len(tokens))[:size][
                : len(tokens) - begin
            ]
        found.append(tokens)
    return found


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("sample", [2**11, 2**9])
def test_the_share_is_near_the_truth_also_in_a_sample(
    share: float, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_copies, "SAMPLE", sample)
    near = NearCopies(VOCABULARY)
    documents = encoded(corpus(2000, share))
    near.add(documents)
    assert near.share == pytest.approx(share, abs=0.06)
    assert near._sample <= sample
    batches = NearCopies(VOCABULARY)
    for part in documents.split(np.arange(7, 2000, 7)):
        batches.add(part)
    assert batches.share == near.share


def test_short_documents_and_none_are_no_copies() -> None:
    near = NearCopies(VOCABULARY)
    near.add(encoded([np.array([1, 2]), np.array([1, 2]), np.array([3])]))
    assert near.share == 0.0
    near.add(encoded([np.arange(5), np.arange(5), np.arange(5)]))
    assert near.share == pytest.approx(2 / 3)


def test_no_more_tokens_are_looked_at_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "MOST_TOKENS", 100)
    near = NearCopies(VOCABULARY)
    document = np.arange(200)
    near.add(encoded([document]))
    near.add(encoded([document] * 9))
    assert near.share == 0.0


def test_prepare_tells_the_share_and_suggests_clean_where_it_is_high(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    texts = [prose(number, 80) for number in range(70)]
    copies = [edited(random.Random(n).choice(texts), 1, n) for n in range(30)]
    lines = {}
    for name, corpus in (("good", texts), ("bad", texts + copies)):
        path = write_texts(tmp_path, corpus, f"{name}.jsonl")
        lines[name] = jielong.prepare(path, tokenizer_dir, tmp_path / name).lines()
    text = "\n".join(lines["good"])
    assert "70 (0.0% duplicates, about 0.0% with near ones)" in text
    assert "jielong clean" not in text
    (note,) = (line for line in lines["bad"] if "jielong clean" in line)
    share = int(note.split("about ")[1].split("%")[0])
    assert 20 <= share <= 33
    pytest.importorskip("rensa")
    cleaned = jielong.clean(tmp_path / "bad.jsonl", tmp_path / "cleaned")
    assert sum(account.dropped for account in cleaned.accounts.values()) == 30
    lines = jielong.prepare(tmp_path / "cleaned", tokenizer_dir, tmp_path / "better").lines()
    assert "`jielong clean`" not in "\n".join(lines)
