"""Pairs of texts with one key, and the groups that they join: the same however they are cut."""

from __future__ import annotations

import random
import tracemalloc
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from cleaned_texts import clean_texts, dropped, edited, kept, prose
from jielong.cleaning import columns, duplicates, lines, pairs, staging
from jielong.cleaning import groups as grouping
from jielong.cleaning.groups import groups
from jielong.cleaning.pairs import Pairs, both, of_numbers, share_keys
from jielong.cleaning.report import CleanReport
from jielong.cleaning.staging import Place, Places, Stage, Texts
from jielong.errors import DataError
from jielong.runtime.tasks import Here

TEXTS = 500
KEYS = np.random.default_rng(0).integers(2**64, size=120, dtype=np.uint64)[
    np.random.default_rng(1).integers(120, size=TEXTS)
]


@pytest.fixture(params=["in one part", "in many parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in many parts":
        cut_small(monkeypatch)


def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have few numbers, pairs and texts taken at once."""
    for module in (columns, pairs, duplicates, staging, grouping):
        for name in ("CHUNK", "LISTED"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 16)
    monkeypatch.setattr(pairs, "WRITTEN", 40)
    monkeypatch.setattr(pairs, "PART_ROWS", 50)
    monkeypatch.setattr(pairs, "SORTED_TEXTS", 30)
    monkeypatch.setattr(lines, "PART_BYTES", 1000)
    monkeypatch.setattr(lines, "WRITTEN", 100)
    monkeypatch.setattr(staging, "BATCH_TEXTS", 7)
    monkeypatch.setattr(duplicates, "BATCH_TEXTS", 7)


@pytest.mark.parametrize("with_first", [True, False])
def test_pairs_are_those_of_texts_with_the_same_key(
    with_first: bool, parts: None, tmp_path: Path
) -> None:
    is_meant = np.arange(TEXTS) % 7 != 0
    found = Pairs(tmp_path / "pairs", TEXTS)
    for _ in range(2):  # what is found twice is there once
        share_keys(Here(), KEYS, lambda chunk: is_meant[chunk], found, tmp_path, with_first)
    expected = set()
    last: dict[int, int] = {}
    for number, key in enumerate(KEYS.tolist()):
        if is_meant[number]:
            if key in last:
                expected.add((number, last[key]))
            if key not in last or not with_first:
                last[key] = number
    all_pairs = found.finish()
    upper, lower = both(all_pairs)
    assert list(zip(upper.tolist(), lower.tolist(), strict=True)) == sorted(expected)
    begins, ends = of_numbers(all_pairs, np.arange(TEXTS))
    assert (ends - begins).tolist() == [sum(u == n for u, _ in expected) for n in range(TEXTS)]


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    peaks = []
    for texts in (2**18, 2**20):
        folder = tmp_path / str(texts)
        folder.mkdir()
        keys = columns.filled(folder / "keys", texts, np.uint64)
        keys[:] = np.random.default_rng(0).integers(texts // 4, size=texts, dtype=np.uint64)
        keys *= np.uint64(2**64 // (texts // 4))
        every = np.ones(texts, bool)
        tracemalloc.start()
        found = Pairs(folder / "pairs", texts)
        share_keys(Here(), keys, every.__getitem__, found, folder, True)
        assert len(found.finish()) > texts / 2
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_groups_are_what_chains_of_pairs_join(parts: None, tmp_path: Path) -> None:
    draw = random.Random(0)
    joined = sorted({tuple(sorted(draw.sample(range(TEXTS), 2))[::-1]) for _ in range(200)})
    label = list(range(TEXTS))
    for a, b in joined:
        label = [label[b] if each == label[a] else each for each in label]
    expected = defaultdict(list)
    for number in {n for both_of in joined for n in both_of}:
        expected[label[number]].append(number)
    given = np.array([a << 32 | b for a, b in joined], np.uint64)
    found = [group.tolist() for group in groups(given, TEXTS, tmp_path)]
    assert found == sorted(sorted(group) for group in expected.values())


def test_a_stage_keeps_texts_and_places_in_order(parts: None, tmp_path: Path) -> None:
    texts = [f"text {number} 床前" * (number % 3) for number in range(100)]
    places = [Place(f"file {number // 30}", number) for number in range(100)]
    stage = Stage(tmp_path / "stage")
    for begin in range(0, 100, 9):
        some = [text.encode() for text in texts[begin : begin + 9]]
        stage.add(Texts.of(some), Places.of(places[begin : begin + 9]))
    stage.finish()
    stage.drop(3)
    left = [number for number in range(100) if number != 3]
    assert list(stage.texts()) == [(number, texts[number]) for number in left]
    assert [text for batch in stage.batches() for text in batch] == [texts[n] for n in left]
    assert [stage.place(number) for number in range(99, -1, -1)] == places[::-1]
    stage.close()


def test_more_texts_than_have_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clean them in parts"):
        Pairs(tmp_path / "pairs", 2**32 + 1)


def all_of(report: CleanReport) -> tuple[list[str], list[dict[str, object]]]:
    rows = [row for name in ("exact", "near", "lines") for row in dropped(report, name)]
    return kept(report), [row | {"file": "", "like": str(row.get("like"))[-8:]} for row in rows]


def test_what_is_dropped_does_not_depend_on_how_the_work_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rensa")
    draw = random.Random(5)
    texts = [prose(number, 60) for number in range(40)]
    texts += [edited(text, 1 + draw.randrange(6), draw.randrange(99)) for text in texts * 2]
    texts += [f"a menu that is on every page\n{text}" for text in draw.choices(texts, k=40)]
    draw.shuffle(texts)
    filters = ("default", "lines")
    whole = clean_texts(tmp_path / "whole", texts, filters=filters)
    cut_small(monkeypatch)
    monkeypatch.setattr(duplicates, "SENT_BYTES", 1200)  # some groups are too large to be sent
    in_parts = clean_texts(tmp_path / "in-parts", texts, filters=filters)
    assert all_of(whole) == all_of(in_parts)
    assert all(whole.accounts[name].dropped for name in ("exact", "near"))
    assert whole.accounts["lines"].changed
