"""Which documents are held out: as defined for one at a time, with work linear in their number."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jielong.data.prepare.split import EncodedDocuments, HeldOutSplit

LENGTH = 3  # tokens of each document here


class Written:
    """A split held in memory: its documents by their hashes."""

    def __init__(self) -> None:
        self.documents = 0
        self.tokens: list[int] = []

    def write(self, tokens: np.ndarray, lengths: np.ndarray, text_bytes: int) -> None:
        assert len(tokens) == lengths.sum() == LENGTH * len(lengths)
        assert text_bytes == 2 * lengths.sum()
        self.documents += len(lengths)
        self.tokens += tokens.tolist()

    @property
    def keys(self) -> list[int]:
        """The hash of each document, of which its tokens are made here."""
        assert self.tokens == np.repeat(self.tokens[::LENGTH], LENGTH).tolist()
        return self.tokens[::LENGTH]


def encoded(keys: list[int] | np.ndarray) -> EncodedDocuments:
    """Documents of LENGTH tokens whose hashes, times 2^54, are `keys` (below 1024)."""
    tokens = np.repeat(np.array(keys, np.uint32), LENGTH)
    lengths = np.full(len(keys), LENGTH)
    return EncodedDocuments(
        tokens, lengths, 2 * lengths, np.array(keys, np.uint64) << np.uint64(54)
    )


def split(batches: list[EncodedDocuments], bound: int) -> tuple[Written, Written]:
    train, held = Written(), Written()
    splitting = HeldOutSplit(train, held, bound / 1024)  # type: ignore[arg-type]
    for batch in batches:
        splitting.add(batch)
    splitting.finish()
    return train, held


def split_one_by_one(keys: list[int], bound: int) -> tuple[list[int], list[int]]:
    """The definition: the training and the held-out keys, in the order they are written."""
    sides: tuple[list[int], list[int]] = ([], [])
    spare: list[int] = []  # kept aside, with its repeats
    for number, key in enumerate(keys):
        held = key < bound
        if not bound or len({other < bound for other in keys[: number + 1]}) == 2:
            sides[not held].extend(spare)
            sides[held].append(key)
            spare = []
        elif not spare or key == spare[0]:
            spare.append(key)
        elif (key > spare[0]) == held:  # nearer to the other side
            sides[held].extend(spare)
            spare = [key]
        else:
            sides[held].append(key)
    if spare:
        held = spare[0] < bound
        sides[not held and bool(sides[False])].extend(spare)
    return sides


@given(
    st.lists(st.integers(0, 9) | st.integers(0, 1023), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.sampled_from([0, 1, 5, 300, 1023]),
)
@settings(max_examples=300, deadline=None)
def test_a_split_is_the_one_that_goes_document_by_document(
    keys: list[int], cuts: list[int], bound: int
) -> None:
    places = [0, *sorted(min(cut, len(keys)) for cut in cuts), len(keys)]
    batches = [encoded(keys[a:b]) for a, b in itertools.pairwise(places)]
    train, held = split(batches, bound)
    assert (train.keys, held.keys) == split_one_by_one(keys, bound)


class Counted(np.ndarray):
    """An array that counts the elements of every array made of it, view or copy."""

    elements = 0

    def __array_finalize__(self, source: object) -> None:
        Counted.elements += self.size

    def __array_function__(self, function: Any, *arguments: Any) -> Any:
        made = super().__array_function__(function, *arguments)  # np.concatenate, for one
        Counted.elements += sum(map(np.size, made if isinstance(made, list) else [made]))
        return made


def elements_touched(batches: list[EncodedDocuments], bound: int) -> int:
    columns = ("tokens", "lengths", "sizes", "hashes")
    counted = [
        EncodedDocuments(*(getattr(b, name).view(Counted) for name in columns)) for b in batches
    ]
    Counted.elements = 0
    split(counted, bound)
    return Counted.elements


@pytest.mark.parametrize("documents_a_batch", [10, 10_000])
@pytest.mark.parametrize("kind", ["equal", "each nearer", "each farther", "other side at the end"])
def test_twice_the_documents_are_twice_the_work(kind: str, documents_a_batch: int) -> None:
    def touched(count: int) -> int:
        keys = {
            "equal": np.full(count, 900),
            "each nearer": 1023 - np.arange(count),
            "each farther": 10 + np.arange(count),
            "other side at the end": np.append(np.full(count - 1, 900), 3),
        }[kind]
        cuts = range(0, count, documents_a_batch)
        return elements_touched([encoded(keys[c : c + documents_a_batch]) for c in cuts], 5)

    assert touched(1000) < 2.2 * touched(500)


def test_repeats_of_the_document_kept_aside_take_no_memory() -> None:
    batch = encoded([900] * 1000)
    one = batch.tokens.nbytes
    train, held = Written(), Written()
    splitting = HeldOutSplit(train, held, 5 / 1024)  # type: ignore[arg-type]
    splitting.add(batch)
    tracemalloc.start()
    for _ in range(300):
        splitting.add(batch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * one
    splitting.finish()
    assert (train.documents, held.documents) == (301_000, 0)
