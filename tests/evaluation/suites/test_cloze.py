"""Continuations: chosen as defined, cut from held-out documents."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jielong.evaluation.suites import cloze
from jielong.evaluation.suites.subject import Options, Subject
from suite_checks import by_name, nats


def test_cloze_is_the_likeliest_of_four_continuations(subject: Subject) -> None:
    options = Options(limit=9)
    found = by_name(cloze.measure(subject, options)[0])
    passages, length = cloze._passages(subject)
    texts = [p.document.ids[p.cut : p.cut + length] for p in passages]
    chosen = []
    for i in options.spread(len(passages)).tolist():
        p, others = passages[i], cloze._others(i, passages, texts, options.seed)
        given = p.document.ids[max(0, p.cut - subject.context + length) : p.cut]
        if p.cut <= subject.context - length:  # the document's first token is in sight
            given = np.append(subject.tokenizer.bos_id, given)
        each = [nats(subject, np.append(given, texts[j]), len(given)) for j in (i, *others)]
        chosen.append(min(each) == each[0])
    measure = found["continuation"].measure()
    assert measure.items == 9 and measure.beside["chance"] == 0.25
    assert measure.value == pytest.approx(np.mean(chosen))
    right = found["next token"].measure()
    assert right.value > right.beside["unigram"]


def test_the_passages_of_cloze_are_cut_from_documents_and_do_not_overlap(subject: Subject) -> None:
    passages, length = cloze._passages(subject)
    spans: dict[int, list[int]] = {}
    for p in passages:
        assert length <= p.cut <= len(p.document.ids) - length
        spans.setdefault(p.document.number, []).append(p.cut)
    for cuts in spans.values():
        assert all(b - a >= length for a, b in itertools.pairwise(cuts))
    texts = [p.document.ids[p.cut : p.cut + length] for p in passages]
    for i in range(len(passages)):
        others = cloze._others(i, passages, texts, seed=1)
        assert len(set(others)) == 3
        for j in others:
            assert passages[j].document.number != passages[i].document.number
            assert not np.array_equal(texts[i], texts[j])
