"""Minimal pairs against their definition, and bad files in one clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from jielong.errors import DataError
from jielong.evaluation.suites import grammar
from jielong.evaluation.suites.subject import Options, Subject
from suite_checks import by_name, nats

BLIMP = Path(__file__).parents[2] / "fixtures" / "blimp"


def test_grammar_is_how_often_the_good_sentence_is_likelier(subject: Subject) -> None:
    found = by_name(grammar.measure(subject, Options(path=str(BLIMP)))[0])
    assert list(found)[2:] == ["npi_present_2", "regular_plural_subject_verb_agreement_2"]
    raw, corrected = [], []
    for name in list(found)[2:]:
        right, by_length = [], []
        for line in (BLIMP / f"{name}.jsonl").read_text().splitlines():
            pair = json.loads(line)
            good, bad = (subject.document(pair[f"sentence_{which}"]) for which in ("good", "bad"))
            each = nats(subject, good), nats(subject, bad)
            right.append(each[0] < each[1])
            by_length.append(each[0] / math.sqrt(len(good) - 1) < each[1] / math.sqrt(len(bad) - 1))
        measure = found[name].measure()
        assert measure.items == 24 and measure.value == pytest.approx(np.mean(right))
        assert measure.beside["÷ √length"] == pytest.approx(np.mean(by_length))
        assert measure.beside["chance"] == 0.5
        raw.append(np.mean(right))
        corrected.append(np.mean(by_length))
    assert found["all sets"].measure().value == pytest.approx(np.mean(raw))
    assert found["all sets, ÷ √length"].measure().value == pytest.approx(np.mean(corrected))


def test_sentences_that_a_model_cannot_tell_apart_count_half(
    subject: Subject, tmp_path: Path
) -> None:
    """The unigram, where the words are the same in another order."""
    file = tmp_path / "order.jsonl"
    pair = {"sentence_good": "Tale word1 word2", "sentence_bad": "Tale word2 word1"}
    file.write_text(json.dumps(pair))
    found = by_name(grammar.measure(subject, Options(path=str(file)))[0])
    assert found["order"].measure().beside["unigram"] == 0.5


def test_a_limit_takes_pairs_from_the_whole_of_each_set(subject: Subject) -> None:
    sets = grammar.read_sets(Options(limit=3, path=str(BLIMP)))
    everything = grammar.read_sets(Options(limit=0, path=str(BLIMP)))
    assert [len(pairs) for pairs in everything.values()] == [24, 24]
    for name, pairs in sets.items():
        assert pairs == [everything[name][i] for i in (0, 8, 16)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not a line of JSON"),
        (b"\xff", "not a line of JSON in UTF-8"),
        (b"[]", "not an object"),
        (b'{"sentence_good": "a"}', "sentence_bad is missing"),
        (b'{"sentence_good": "a", "sentence_bad": 3}', "sentence_bad is missing, empty or not"),
        (b'{"sentence_good": "a", "sentence_bad": "a"}', "the same sentence"),
        (b'{"sentence_good": "a", "sentence_bad": "\\ud800"}', "sentence_bad is not valid Unicode"),
    ],
)
def test_a_bad_pair_is_named_by_file_and_line(
    line: bytes, reason: str, subject: Subject, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b'{"sentence_good": "a", "sentence_bad": "b"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"pairs\.jsonl:3: .*{reason}"):
        grammar.measure(subject, Options(path=str(file)))


def test_grammar_without_pairs_says_where_to_get_some(subject: Subject, tmp_path: Path) -> None:
    for path in (None, str(tmp_path), str(tmp_path / "no")):
        with pytest.raises(DataError, match="sentence_good and sentence_bad"):
            grammar.measure(subject, Options(path=path))
