"""Batch sizes that follow from the model and the budget."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from jielong.config.load import load_config
from jielong.config.settings import Config
from jielong.training.scaling import first_batches, with_batch_size
from tiny import ListStream


def settled(tokens: int, **values: Any) -> Config:
    config = load_config(tokens=tokens, max_seq_len=64, hidden_size=128, **values)
    return with_batch_size(config, ListStream([[1, 2]]))


def test_batches_grow_from_a_small_one_to_the_full_one_and_a_sixth_of_a_long_run_is_over() -> None:
    config = settled(10_000_000)
    full = config.training.batch_size
    assert full is not None
    sizes = first_batches(config)
    assert sizes[0] == 4 * 128 // 64
    assert all(a <= b for a, b in itertools.pairwise(sizes)) and sizes[-1] < full
    assert sum(sizes) * 64 / 10_000_000 == pytest.approx((2 / 5) ** 2, abs=0.02)


def test_a_batch_size_that_is_given_is_that_of_all_steps() -> None:
    assert first_batches(settled(10_000_000, batch_size=9)) == []
    assert first_batches(settled(10_000_000, batch_warmup=False)) == []
    grown = first_batches(settled(10_000_000, batch_size=90, batch_warmup=True))
    assert grown[0] == 8 and grown[-1] < 90


def test_accumulation_counts_for_the_full_batch() -> None:
    config = settled(10_000_000, batch_size=5, accumulation_steps=8, batch_warmup=True)
    assert 5 < first_batches(config)[-1] < 40


@pytest.mark.parametrize("tokens", [1, 100, 5_000, 200_000])
def test_a_short_run_has_batches_too(tokens: int) -> None:
    config = settled(tokens)
    assert config.training.batch_size and config.training.batch_warmup
    assert all(1 <= size <= config.training.batch_size for size in first_batches(config))
