"""Repetition and diversity, counted as the papers do."""

from __future__ import annotations

import numpy as np

from jielong.evaluation.suites import writing
from jielong.evaluation.suites.subject import Options, Subject, documents
from suite_checks import by_name


def test_writing_counts_as_its_papers_do() -> None:
    ids = np.array([1, 2, 1, 2, 1, 2, 3])
    assert writing.ngrams(ids, 2) == [(1, 2), (2, 1), (1, 2), (2, 1), (1, 2), (2, 3)]
    assert writing._different(ids, 2) == 3
    assert writing.ngrams(ids, 8) == []
    others = writing._in_other_texts([ids, np.array([9, 1, 2, 9]), np.array([4, 4])], 2)
    assert others.tolist() == [3, 1, 0]


def test_writing_compares_texts_of_the_same_length(subject: Subject) -> None:
    found, notes = writing.measure(subject, Options(limit=6))
    texts = subject.drawn[(6, 1337)]
    assert [len(a) for a in texts.by_model] == [len(b) for b in texts.real]
    assert len(texts.real) == 6 and any(len(ids) >= 16 for ids in texts.real)
    every = [d.ids for d in documents(subject.need_held_out("x"), subject.tokenizer, 28)]
    for ids in texts.real:
        assert any(np.array_equal(ids, d[12 : 12 + len(ids)]) for d in every)
    named = by_name(found)
    assert set(named) >= {"distinct-1", "distinct-2", "4-grams repeated"}
    for ratio in found:
        assert 0 <= ratio.measure().value <= 1 and "real text" in ratio.measure().beside
    assert "6 held-out texts" in notes[0]
