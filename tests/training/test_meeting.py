"""Processes that start together agree on a name of their own, whatever was left behind before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from jielong.errors import TrainingError
from jielong.runtime.meeting import agree

RANKS = 3


def start(store: HashStore, late: int | None = None) -> list[str]:
    """The names that the ranks of one start end up with."""
    with ThreadPoolExecutor(RANKS) as pool:
        order = sorted(range(RANKS), key=lambda rank: rank == late)
        found = {
            rank: pool.submit(agree, store, rank, RANKS, timedelta(seconds=60)) for rank in order
        }
        return [found[rank].result() for rank in range(RANKS)]


def test_each_start_has_a_name_of_its_own_in_the_same_store() -> None:
    store, seen = HashStore(), []
    for late in (None, 0, 1, 2):
        names = start(store, late)
        assert len(set(names)) == 1
        seen.append(names[0])
    assert len(set(seen)) == 4


def test_what_a_start_left_that_did_not_come_to_its_end_is_passed_over() -> None:
    store = HashStore()
    # rank 0 had named it, and rank 1 had answered, before all were stopped
    store.set("jielong/name", "old")
    store.set("jielong/old/word/1", "gone")
    assert len({*start(store, late=0)} - {"old"}) == 1
    # rank 0 had gone on to repeat the words
    store.set("jielong/name", "older")
    store.set("jielong/older/words", "gone gone")
    assert len({*start(store, late=0)} - {"older"}) == 1


@pytest.mark.parametrize(("rank", "missing"), [(0, "rank 1"), (1, "rank 0")])
def test_a_process_that_is_alone_says_whom_it_has_waited_for(rank: int, missing: str) -> None:
    with pytest.raises(TrainingError, match=f"waited in vain for {missing}"):
        agree(HashStore(), rank, 2, timedelta(seconds=0.1))
