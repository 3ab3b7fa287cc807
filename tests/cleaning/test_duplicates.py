"""Exact and near duplicates: what is dropped is in a text that stays, and nothing else is."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cleaned_texts import clean_texts, dropped, edited, kept, prose
from jielong.cleaning import marks
from jielong.cleaning.marks import RECALL, SIGNATURE, Bands, rows_of_bands
from jielong.cleaning.shingles import shingles, shingles_of_all
from jielong.errors import ConfigError
from tiny import environment

pytest.importorskip("rensa")
POEMS = [
    "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。",
    "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。",
    "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。",
    "千山鳥飛絕，萬徑人蹤滅。孤舟蓑笠翁，獨釣寒江雪。",
]


def similarity(a: str, b: str) -> float:
    """Jaccard of the runs of five words or Chinese characters, by the definition."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[\u4e00-\u9fff]|[a-z0-9]+", text.lower())
        return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}

    one, other = runs(a), runs(b)
    return len(one & other) / len(one | other)


def corpus(count: int, seed: int) -> list[str]:
    """Texts of which two thirds are others with up to a quarter of their words changed."""
    rng = random.Random(seed)
    texts = [prose(seed * 1000 + number, rng.randrange(30, 400)) for number in range(count)]
    texts += [
        edited(text, 1 + int(rng.random() ** 2 * len(text.split()) / 4), rng.randrange(10**6))
        for text in rng.choices(texts, k=2 * count)
    ]
    rng.shuffle(texts)
    return texts


def test_of_exact_duplicates_the_first_stays_and_is_named(tmp_path: Path) -> None:
    texts = [prose(1), prose(2), prose(1), prose(3), f"\n{prose(2)}  ", prose(1)]
    report = clean_texts(tmp_path, texts, filters="exact")
    assert kept(report) == [prose(1), prose(2), prose(3)]
    listed = [(row["line"], row["like"]) for row in dropped(report, "exact")]
    file = tmp_path / "corpus.jsonl"
    assert listed == [(3, f"{file}:1"), (5, f"{file}:2"), (6, f"{file}:1")]
    account = report.accounts["exact"]
    assert account.dropped == 3 and account.examples[0].startswith(f"{file}:3: the same as")


@pytest.mark.parametrize("least", [0.6, 0.8, 0.95])
def test_every_near_duplicate_is_that_similar_to_a_text_that_stays_and_no_two_that_stay_are(
    least: float, tmp_path: Path
) -> None:
    texts = corpus(60, seed=3)
    report = clean_texts(tmp_path, texts, filters="near", near_similarity=least)
    stays = kept(report)
    for row in dropped(report, "near"):
        first = texts[int(row["like"].rpartition(":")[2]) - 1]
        assert first in stays and row["text"] == texts[row["line"] - 1]
        assert similarity(first, row["text"]) == pytest.approx(row["similarity"], abs=1e-4)
        assert row["similarity"] >= least
    assert len(stays) + report.accounts["near"].dropped == len(texts)
    alike = [(a, b) for i, a in enumerate(stays) for b in stays[:i] if similarity(a, b) >= least]
    assert not alike
    assert 60 <= len(stays) < 180


def test_texts_that_differ_in_little_but_meaning_stay(tmp_path: Path) -> None:
    texts = [
        *POEMS,
        POEMS[0].replace("疑", "凝"),
        *("print(a + b)", "print(a - b)", "print(a * b)", "if x < y: return x"),
        *(
            "if x > y: return x",
            "x = [1, 2]",
            "x = {1, 2}",
            "it was 5 degrees",
            "it was -5 degrees",
        ),
        *("Q: the capital of France? A: Paris", "Q: the capital of Spain? A: Madrid"),
        *("😀", "😃", "...", "---"),
    ]
    report = clean_texts(tmp_path, texts)
    assert kept(report) == texts


def test_case_spaces_and_marks_make_no_other_text(tmp_path: Path) -> None:
    text = prose(5)
    others = [text.upper(), text.replace(". ", " … "), text.replace(" ", "  ")]
    poem = "".join(POEMS)
    report = clean_texts(tmp_path, [text, poem, *others, poem.replace("，", ",")])
    assert kept(report) == [text, poem]
    assert report.accounts["near"].dropped == 4


def test_a_chain_of_likenesses_drops_only_what_is_like_the_one_that_stays(tmp_path: Path) -> None:
    texts = [prose(7, 200)]
    for step in range(12):  # each changes 10 more words in a row: 0.86 like the one before
        words = texts[-1].split(" ")
        words[step * 14 : step * 14 + 10] = [f"step{step}{number}" for number in range(10)]
        texts.append(" ".join(words))
    report = clean_texts(tmp_path, texts)
    stays = kept(report)
    assert 3 <= len(stays) < len(texts)
    for text in texts:
        assert max(similarity(text, one) for one in stays) >= 0.8


def test_many_copies_of_one_text_are_compared_with_one(tmp_path: Path) -> None:
    text = prose(9, 100)
    copies = [f"{text} {number}" for number in range(500)]
    report = clean_texts(tmp_path, copies)
    assert kept(report) == copies[:1]


def test_bands_find_nearly_all_pairs_that_are_just_similar_enough() -> None:
    for least in (0.5, 0.7, 0.8, 0.9, 1.0):
        rows = rows_of_bands(least)
        assert 1 - (1 - least**rows) ** (SIGNATURE // rows) >= RECALL
    bands, found = Bands(0.8), 0
    rng = np.random.default_rng(0)
    for _ in range(400):  # pairs of 900 hashes with 800 in common: 0.8
        hashes = rng.integers(2**63, size=1000, dtype=np.uint64)
        keys = bands.keys(np.append(hashes[:900], hashes[100:]), np.array([900, len(hashes) - 100]))
        found += bool((keys[:, 0] == keys[:, 1]).any())
    assert found >= 0.98 * 400


def test_texts_that_are_split_together_have_the_shingles_of_each_alone() -> None:
    texts = ["", "a", "one two three four", "ΟΔΟΣ", "Σ", "x\0y ΣΑΣ\0Σ q r s t", "-1 + 2 -", "5 6"]
    texts += ["\0", "床前明月光，疑是地上霜", "!?", "İstanbul ǅ a-b a -7", "床"]
    found, counts = shingles_of_all(texts)
    assert len(found) == counts.sum()
    for text, own in zip(texts, np.split(found, np.cumsum(counts)[:-1]), strict=True):
        assert np.unique(own).tolist() == shingles(text).tolist(), text
    assert shingles_of_all([])[1].tolist() == []


def test_shingles_and_bands_are_the_same_in_every_process() -> None:
    code = (
        "from jielong.cleaning.shingles import shingles\n"
        "from jielong.cleaning.marks import Bands\n"
        "found = shingles('The quick brown fox 床前明月光 jumps over it')\n"
        "print(int(found.sum()), int(Bands(0.8).keys(found, [len(found)]).sum()))"
    )
    said = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code]
        env = environment(PYTHONHASHSEED=seed)
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    found = shingles("The quick brown fox 床前明月光 jumps over it")
    said.add(f"{int(found.sum())} {int(Bands(0.8).keys(found, np.array([len(found)])).sum())}\n")
    assert len(said) == 1


def test_a_very_long_text_is_split_without_losing_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(prose(seed) for seed in range(5)) + "".join(POEMS) * 20
    whole = shingles(text)
    monkeypatch.setattr("jielong.cleaning.shingles.PIECE_CHARS", 100)
    assert (shingles(text) == whole).all()


def test_texts_too_long_to_compare_stay_and_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "LONGEST_CHARS", 500)
    texts = [prose(1, 200), edited(prose(1, 200), 1), prose(2, 40), prose(2, 40) + " more"]
    report = clean_texts(tmp_path, texts)
    assert kept(report) == texts[:3]
    assert "2 texts of more than" in "\n".join(report.lines())


def test_without_its_library_near_is_refused_by_name_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(ConfigError, match=r"jielong\[clean\].*--without near"):
        clean_texts(tmp_path, [prose(1)])
    assert not (tmp_path / "out").exists()
    assert kept(clean_texts(tmp_path, [prose(1)] * 2, without="near")) == [prose(1)]
