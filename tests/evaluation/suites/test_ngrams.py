"""Unigram and bigram against their definitions, written out with dictionaries."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from jielong.evaluation.suites import ngrams
from jielong.evaluation.suites.ngrams import DISCOUNT, Bigram, Unigram
from jielong.evaluation.suites.scoring import Row
from tiny import ListStream, random_documents

V = 64


@pytest.fixture(scope="module")
def train() -> ListStream:
    return ListStream(random_documents(40, 30, seed=3, vocab=20))


def test_the_unigram_is_counts_plus_one(train: ListStream) -> None:
    counts = Counter(train.tokens.tolist())
    [scored] = Unigram(train, V).score([Row(np.arange(V), 1)])
    want = [-np.log((counts[t] + 1) / (len(train) + V)) for t in range(1, V)]
    np.testing.assert_allclose(scored.nats, want)
    likeliest = max(counts, key=lambda t: counts[t])
    assert scored.right.tolist() == [t == likeliest for t in range(1, V)]


@pytest.mark.parametrize("piece_tokens", [50, 2**18])
def test_the_bigram_is_absolute_discounting_and_sums_to_one(
    train: ListStream, piece_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngrams, "PIECE_TOKENS", piece_tokens)
    tokens = train.tokens.tolist()
    pieces = [tokens[i : i + piece_tokens] for i in range(0, len(tokens), piece_tokens)]
    pairs = Counter(pair for p in pieces for pair in itertools.pairwise(p))
    unigram = Unigram(train, V)
    bigram = Bigram(train, unigram)
    for v in (1, 2, 3, 7, 19, 50):  # 50 does not occur
        [scored] = bigram.score([Row(np.ravel([[v, w] for w in range(V)]), 1)])
        after_v = np.exp(-scored.nats[::2])
        assert after_v.sum() == pytest.approx(1)
        seen = {w: n for (first, w), n in pairs.items() if first == v}
        total = sum(seen.values())
        rest = DISCOUNT * len(seen) / total if total else 1
        for w in range(V):
            held = max(seen.get(w, 0) - DISCOUNT, 0) / total if total else 0
            assert after_v[w] == pytest.approx(held + rest * unigram.probability[w])
        likeliest = np.flatnonzero(scored.right[::2])
        assert len(likeliest) == 1
        assert after_v[likeliest[0]] == pytest.approx(after_v.max())


def test_a_long_text_is_counted_in_pieces_that_are_spread_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ngrams, "PIECE_TOKENS", 10)
    monkeypatch.setattr(ngrams, "COUNTED_TOKENS", 40)
    train = ListStream([list(range(100))])
    pieces = list(ngrams.pieces(train))
    assert [int(p[0]) for p in pieces] == [0, 30, 60, 90]
