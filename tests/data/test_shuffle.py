"""The order of an epoch: a permutation, mixed well, worked out for the places asked for."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jielong.data.shuffle import permute

EPOCHS = 400


def order(n: int, seed: int = 7, epoch: int = 0) -> np.ndarray:
    return permute(np.arange(n), n, seed, epoch)


def test_an_order_has_each_window_once_whatever_their_number() -> None:
    for n in range(1, 301):
        for epoch in range(3):
            assert sorted(order(n, epoch=epoch).tolist()) == list(range(n)), (n, epoch)


@given(st.integers(1, 20_000), st.integers(0, 2**64), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_an_order_of_any_seed_and_epoch_has_each_window_once(n: int, seed: int, epoch: int) -> None:
    assert (np.sort(order(n, seed, epoch)) == np.arange(n)).all()


@given(st.integers(1, 2**62), st.integers(0, 2**32), st.data())
@settings(max_examples=60, deadline=None)
def test_a_place_has_its_window_whatever_else_is_asked_for(
    n: int, seed: int, data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    together = permute(np.array(places), n, seed, 3)
    alone = [int(permute(np.array([place]), n, seed, 3)[0]) for place in places]
    assert together.tolist() == alone
    assert together.dtype == np.int64 and together.min() >= 0 and together.max() < n
    assert len(set(alone)) == len(set(places))


def test_a_few_places_of_a_huge_order_take_no_more_memory_than_they() -> None:
    n, places = 2**40 + 1, np.arange(2**39, 2**39 + 1000)
    permute(places, n, 7, 0)
    tracemalloc.start()
    windows = permute(places, n, 7, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * places.nbytes
    assert len(np.unique(windows)) == 1000
    assert windows.min() < n / 50 and windows.max() > n * 49 / 50  # from all over it


# Bounds are five or more standard deviations of orders drawn evenly from all n!
@pytest.mark.parametrize("n", [10, 64, 1000, 1025])
def test_windows_stand_anywhere_and_apart_from_their_neighbours(n: int) -> None:
    orders = np.stack([order(n, epoch=epoch) for epoch in range(EPOCHS)])
    places = np.argsort(orders, axis=1)  # (epochs, n): where each window stands
    deviation = math.sqrt((n * n - 1) / 12 / EPOCHS)
    assert (np.abs(places.mean(0) - (n - 1) / 2) < 6 * deviation).all()

    tenths = np.zeros((n, 10))
    for place in places:
        tenths[np.arange(n), place * 10 // n] += 1
    expected = np.bincount(np.arange(n) * 10 // n) / n * EPOCHS
    chi_square, freedom = ((tenths - expected) ** 2 / expected).sum(), 9 * (n - 1)
    assert abs(chi_square - freedom) < 6 * math.sqrt(2 * freedom) + 0.02 * freedom

    adjacent = (np.abs(np.diff(places, axis=1)) == 1).sum() / EPOCHS
    assert abs(adjacent - 2 * (n - 1) / n) < 6 * math.sqrt(2 / EPOCHS)


def test_orders_of_successive_epochs_have_nothing_in_common() -> None:
    n = 1000
    orders = [order(n, epoch=epoch) for epoch in range(EPOCHS)]
    pairs = list(itertools.pairwise(orders))
    in_place = np.mean([(a == b).sum() for a, b in pairs])  # 1 expected, of variance 1
    assert abs(in_place - 1) < 6 / math.sqrt(len(pairs))
    alike = [np.corrcoef(np.argsort(a), np.argsort(b))[0, 1] for a, b in pairs]
    assert np.abs(alike).max() < 6 / math.sqrt(n)
    assert abs(np.mean(alike)) < 6 / math.sqrt(n * len(pairs))


def test_orders_of_seeds_differ() -> None:
    orders = {tuple(order(50, seed, epoch)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_every_order_of_a_few_windows_comes_up() -> None:
    for n in (2, 3, 4):
        seen = Counter(tuple(order(n, epoch=epoch)) for epoch in range(100 * math.factorial(n)))
        assert len(seen) == math.factorial(n)
        assert min(seen.values()) > 40


def by_definition(place: int, n: int, seed: int, epoch: int) -> int:
    """The window at a place, in whole numbers of Python."""
    keys = np.random.SeedSequence([seed, epoch]).generate_state(8, np.uint64).tolist()
    bits = (n - 1).bit_length()
    widths = bits // 2, bits - bits // 2
    number = place
    while True:
        left, right = divmod(number, 2 ** widths[1])
        for i, key in enumerate(keys):
            x = right ^ key
            x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
            left, right = right, left ^ (x ^ x >> 31) % 2 ** widths[i % 2]
        number = left * 2 ** widths[1] + right
        if number < n:
            return number


@given(st.integers(1, 2**62), st.integers(0, 2**32), st.integers(0, 100), st.data())
@settings(max_examples=60, deadline=None)
def test_an_order_is_its_definition_in_whole_numbers(
    n: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, n - 1))
    expected = by_definition(place, n, seed, epoch)
    assert permute(np.array([place]), n, seed, epoch).tolist() == [expected]
