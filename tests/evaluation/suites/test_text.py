"""Bits per byte of kinds of text against their definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from jielong.errors import DataError
from jielong.evaluation.suites import text
from jielong.evaluation.suites.subject import Options, Subject
from suite_checks import by_name, nats


def test_text_is_bits_per_byte_of_each_kind(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "tales.jsonl").write_text('{"text": "Tale 3. word1"}\n{"text": "Tale 4."}\n')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "poem.txt").write_text("春眠不觉晓" * 20)
    found = by_name(text.measure(subject, Options(path=str(tmp_path)))[0])
    assert list(found) == ["other", "tales"]
    want = sum(nats(subject, subject.document(t)) for t in ("Tale 3. word1", "Tale 4."))
    measure = found["tales"].measure()
    assert measure.value == pytest.approx(want / math.log(2) / len("Tale 3. word1Tale 4."))
    assert measure.items == 2
    poem = subject.document("春眠不觉晓" * 20)  # longer than the context: in windows
    assert len(poem) > 2 * subject.context
    windows = [poem[i : i + 65] for i in range(0, len(poem) - 1, 64)]
    want = sum(nats(subject, window) for window in windows)
    assert found["other"].measure().value == pytest.approx(want / math.log(2) / 300, rel=1e-4)


def test_a_model_beats_the_bigram_and_that_the_unigram_on_held_out_text(subject: Subject) -> None:
    [ratio], _ = text.measure(subject, Options())
    measure = ratio.measure()
    assert measure.value < measure.beside["bigram"] < measure.beside["unigram"]


def test_at_most_twice_the_limit_of_texts_is_held() -> None:
    texts = [int(t) for t in text.spread_of((str(i) for i in range(1000)), 10)]
    assert len(texts) == 10 and texts[0] == 0 and texts[-1] > 850
    assert max(np.diff(texts)) <= 2 * min(np.diff(texts))
    assert text.spread_of(["a", "", "b"], 0) == ["a", "b"]


def test_text_that_is_not_there_is_named(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no/such"):
        text.measure(subject, Options(path=str(tmp_path / "no" / "such")))
