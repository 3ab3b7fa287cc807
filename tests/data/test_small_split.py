"""What is held out of small texts: enough to measure by, on one side only, spread over the text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jielong
from jielong.data.prepare.report import PrepareReport
from jielong.data.prepare.small_split import GAP_TOKENS, LARGE_SHARE
from jielong.data.shards import Dataset, open_dataset
from jielong.tokenization.tokenizer import Tokenizer


def words(count: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefgh", k=4)) for _ in range(count))


def prepared(
    folder: Path, tokenizer: Path, texts: list[str] | str, **settings: Any
) -> tuple[PrepareReport, Dataset]:
    source = folder / ("text.txt" if isinstance(texts, str) else "text.jsonl")
    if isinstance(texts, str):
        source.write_text(texts)
    else:
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    report = jielong.prepare(source, tokenizer, folder / "out", **settings)
    return report, open_dataset(folder / "out")


def runs(tokens: np.ndarray, length: int) -> set[tuple[int, ...]]:
    """All stretches of `length` tokens."""
    return {tuple(row) for row in np.lib.stride_tricks.sliding_window_view(tokens, length).tolist()}


def test_short_documents_give_a_tenth_of_the_text(tmp_path: Path, tokenizer_dir: Path) -> None:
    report, dataset = prepared(tmp_path, tokenizer_dir, [words(10, i) for i in range(400)])
    assert dataset.validation is not None
    share = report.validation_tokens / report.tokens
    assert 0.09 < share < 0.125 and report.validation_documents > 20
    assert not report.held_out_pieces and "tokens (1" in "\n".join(report.lines())


@pytest.mark.parametrize(
    "texts",
    [[words(3), words(5000, 1)], [words(2000, i) for i in range(5)], words(6000, 2)],
    ids=["one long, one short", "five books", "one file"],
)
def test_few_documents_give_pieces_with_gaps(
    tmp_path: Path, tokenizer_dir: Path, texts: list[str] | str
) -> None:
    report, dataset = prepared(tmp_path, tokenizer_dir, texts)
    held, train = dataset.validation, dataset.train
    assert held is not None
    whole = [texts] if isinstance(texts, str) else texts
    everything = np.concatenate(
        [Tokenizer.load(tokenizer_dir).encode(text) for text in whole]
    ).astype(np.int64)
    share = len(held) / len(everything)
    assert 0.08 < share < 0.11 and report.held_out_pieces == len(held.documents) == 8
    assert "8 pieces of documents" in "\n".join(report.lines())
    lost = len(everything) - len(held) - len(train)
    assert 0 < lost <= 2 * GAP_TOKENS * 8
    # no stretch of the held-out text is in the training text, and each piece is of the text
    held_tokens, train_tokens = held.read(0, len(held)), train.read(0, len(train))
    assert not runs(held_tokens, 12) & runs(train_tokens, 12)
    inside = runs(everything, GAP_TOKENS)
    for start in held.documents:
        assert tuple(held.read(int(start), int(start) + GAP_TOKENS).tolist()) in inside


def test_duplicates_stay_on_one_side_even_where_pieces_are_cut(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    texts = [words(3000, 1), words(3000, 2), words(3000, 1)]
    _, dataset = prepared(tmp_path, tokenizer_dir, texts)
    held, train = dataset.validation, dataset.train
    assert held is not None
    assert not runs(held.read(0, len(held)), 12) & runs(train.read(0, len(train)), 12)


@pytest.mark.parametrize("texts", ["\n".join(words(4, i) for i in range(30)), [words(2000)] * 5])
def test_where_nothing_can_be_held_out_it_is_said(
    tmp_path: Path, tokenizer_dir: Path, texts: list[str] | str
) -> None:
    report, dataset = prepared(tmp_path, tokenizer_dir, texts)
    assert dataset.validation is None and report.too_small_to_hold_out
    assert "nothing tells learning from memorising" in "\n".join(report.lines())
    source = "text.txt" if isinstance(texts, str) else "text.jsonl"
    asked = jielong.prepare(
        tmp_path / source, tokenizer_dir, tmp_path / "none", validation_fraction=0
    )
    assert not asked.too_small_to_hold_out  # as wished


def test_a_large_text_is_split_as_it_streams(
    tmp_path: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jielong.data.prepare.small_split.SMALL_TOKENS", 20_000)
    monkeypatch.setattr("jielong.data.prepare.encoding.BATCH_CHARS", 2000)
    texts = [words(20, i) for i in range(1500)]
    report, dataset = prepared(tmp_path, tokenizer_dir, texts)
    assert dataset.validation is not None
    assert report.validation_documents + len(dataset.train.documents) == len(texts)
    assert LARGE_SHARE / 2 < report.validation_tokens / report.tokens < LARGE_SHARE * 2


def test_of_a_very_large_text_no_more_is_held_out_than_is_soon_measured(
    tmp_path: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jielong.data.prepare.small_split.SMALL_TOKENS", 20_000)
    monkeypatch.setattr("jielong.data.prepare.small_split.MOST_TOKENS", 400)
    texts = [words(20, i) for i in range(6000)]
    report, _ = prepared(tmp_path, tokenizer_dir, texts)
    assert 200 < report.validation_tokens < 1000 < LARGE_SHARE * report.tokens
    # a share that is asked for is held out
    again = jielong.prepare(
        tmp_path / "text.jsonl", tokenizer_dir, tmp_path / "asked", validation_fraction=LARGE_SHARE
    )
    assert again.validation_tokens > 1000


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of thousands of tokens count as large, documents of more than a thousand as long."""
    monkeypatch.setattr("jielong.data.prepare.small_split.SMALL_TOKENS", 10_000)
    monkeypatch.setattr("jielong.data.prepare.small_split.LONGEST_WHOLE", 1_000)
    monkeypatch.setattr("jielong.data.prepare.encoding.BATCH_CHARS", 2000)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("share", [None, 0.001, 0.3])
@pytest.mark.parametrize(
    "texts",
    [
        [words(12_000, 1)],
        [words(3), words(12_000, 1)],
        [words(12_000, 1), words(40, 2)],
        [words(12_000, 1), words(9000, 2), *(words(20, i) for i in range(3, 300))],
    ],
    ids=["one", "short and long", "long and short", "two long and many short"],
)
def test_long_documents_of_a_large_text_are_never_held_out_whole(
    tmp_path: Path, tokenizer_dir: Path, texts: list[str], share: float | None
) -> None:
    report, dataset = prepared(tmp_path, tokenizer_dir, texts, validation_fraction=share)
    held, train = dataset.validation, dataset.train
    assert held is not None and report.held_out_pieces
    wanted = LARGE_SHARE if share is None else share
    # of 3,000 tokens of short documents, chosen by hash, some more or fewer may be held out
    assert wanted / 2 < report.validation_tokens / report.tokens < 1.5 * wanted + 0.005
    assert not runs(held.read(0, len(held)), 24) & runs(train.read(0, len(train)), 24)


@pytest.mark.usefixtures("large")
def test_a_long_document_that_comes_twice_is_cut_at_the_same_places(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    report, dataset = prepared(tmp_path, tokenizer_dir, [words(9000, 1)] * 3)
    held, train = dataset.validation, dataset.train
    assert held is not None and report.held_out_pieces % 3 == 0
    assert not runs(held.read(0, len(held)), 24) & runs(train.read(0, len(train)), 24)


@pytest.mark.usefixtures("large")
def test_a_large_text_of_one_short_document_many_times_says_that_nothing_is_held_out(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    report, dataset = prepared(tmp_path, tokenizer_dir, [words(100)] * 300)
    assert dataset.validation is None and report.too_small_to_hold_out


@pytest.mark.parametrize("share", [1e-6, 0.001, 0.02, 0.4])
def test_a_share_that_is_asked_for_is_met_however_few_documents_there_are(
    tmp_path: Path, tokenizer_dir: Path, share: float
) -> None:
    texts = [words(size, size) for size in (900, 2000, 3000, 4000, 50)]
    report, dataset = prepared(tmp_path, tokenizer_dir, texts, validation_fraction=share)
    assert dataset.validation is not None
    least = 128  # a piece of fewer tokens tells nothing
    wanted = max(share * report.tokens, least)
    assert wanted / 2 <= report.validation_tokens <= 1.25 * wanted
