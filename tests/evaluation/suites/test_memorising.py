"""What stands in the training text, against a plain search."""

from __future__ import annotations

import numpy as np
import pytest

from jielong.evaluation.suites import memorising, writing
from jielong.evaluation.suites.memorising import Matches, ngram_hashes
from jielong.evaluation.suites.subject import Options, Subject
from suite_checks import by_name
from tiny import ListStream, random_documents


def by_search(ids: np.ndarray, train: list[int], n: int) -> list[bool]:
    there = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    return [tuple(ids[i : i + n].tolist()) in there for i in range(len(ids) - n + 1)]


@pytest.mark.parametrize("piece_tokens", [16, 100, 2**21])
def test_matches_are_those_of_a_plain_search(
    piece_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memorising, "PIECE_TOKENS", piece_tokens)
    rng = np.random.default_rng(0)
    stream = ListStream(random_documents(30, 60, seed=1))
    train = stream.tokens.tolist()
    texts = []
    for start, length in ((5, 40), (200, 20), (333, 9), (500, 64)):
        copied = np.array(train[start : start + length])
        texts.append(np.concatenate([rng.integers(3, 64, 7), copied, rng.integers(3, 64, 5)]))
    texts.append(rng.integers(3, 64, 30))
    texts.append(rng.integers(3, 64, 4))
    matches = Matches(stream, texts)
    assert matches.complete
    for n in (8, 9, 16, 32):
        for ids, found in zip(texts, matches.found(texts, n), strict=True):
            assert found.tolist() == by_search(ids, train, n)
    for ids, (length, start) in zip(texts, matches.longest(texts), strict=True):
        wanted = max(
            (n for n in range(8, len(ids) + 1) if any(by_search(ids, train, n))), default=0
        )
        assert length == wanted
        assert not length or by_search(ids[start : start + length], train, length) == [True]


def test_hashes_tell_order_and_length_apart() -> None:
    ids = np.array([1, 2, 3, 1, 2, 3, 3, 2, 1])
    for n in (1, 2, 3, 5, 9):
        hashes, grams = ngram_hashes(ids, n), writing.ngrams(ids, n)
        assert len(hashes) == len(grams)
        for a in range(len(grams)):
            for b in range(len(grams)):
                assert (hashes[a] == hashes[b]) == (grams[a] == grams[b])
    assert len(ngram_hashes(ids, 10)) == 0


def test_what_is_not_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorising, "KEPT_TOKENS", 20)
    stream = ListStream(random_documents(4, 60, seed=1))
    assert not Matches(stream, [stream.tokens.astype(np.int64)]).complete


def test_memorising_has_held_out_text_beside_it(subject: Subject) -> None:
    found, notes = memorising.measure(subject, Options(limit=6))
    named = by_name(found)
    measure = named["8-grams in the training text"].measure()
    texts = subject.drawn[(6, 1337)]
    train = subject.need_train("x")
    tokens = train.read(0, len(train)).tolist()
    for who, each in (("model", texts.by_model), ("held-out", texts.real)):
        hits = [hit for ids in each for hit in by_search(ids, tokens, 8)]
        value = measure.value if who == "model" else measure.beside[who]
        assert value == pytest.approx(np.mean(hits))
    longest = named["longest match"].measure()
    assert longest.value == pytest.approx(
        np.mean(
            [
                max((n for n in range(8, 52) if any(by_search(ids, tokens, n))), default=0)
                for ids in texts.by_model
            ]
        )
    )
    assert any("longest match of all" in note for note in notes) == (longest.value > 0)
