"""Older text mixed into the batches: its share, its order, and the new text's order beside it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.batches import Batches
from jielong.data.mixture import Mixture, Part
from jielong.data.noise import InputNoise
from tiny import ListStream, random_documents

NEW = ListStream(random_documents(60, longest=20, seed=1))
OLD = ListStream(random_documents(30, longest=20, seed=2))


def mixed(share: float, size: int = 5, old: ListStream = OLD, **data: object) -> Batches:
    config = DataConfig(max_seq_len=8, **data)  # type: ignore[arg-type]
    training = TrainingConfig(global_batch_size=size, seed=3)
    return Batches(NEW, config, training, mixture=Mixture((Part(old, share),)))


def sequence(batches: Batches, epochs: int) -> list[tuple[int, int]]:
    """Epoch and window of each window of a run, in order."""
    steps = range(epochs * batches.steps_per_epoch)
    return [(batches.span(s).epoch, int(w)) for s in steps for w in batches.step_windows(s)]


@pytest.mark.parametrize("packing", ["pack", "pad"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_new_text_comes_in_the_order_it_has_without_the_older_one(
    packing: str, shuffle: bool
) -> None:
    batches = mixed(0.3, packing=packing, shuffle=shuffle)
    training = TrainingConfig(global_batch_size=5, seed=3)
    alone = Batches(NEW, batches.data, training)
    every = np.arange(alone.windows)
    for epoch in range(3):
        order = [w for e, w in sequence(batches, 3) if e == epoch and w < batches.main_windows]
        assert order == alone.ordered(epoch, every).tolist()
        for name in ("tokens", "targets"):
            rows = getattr(batches.load(np.array(order), epoch), name)
            assert torch.equal(rows, getattr(alone.load(np.array(order), epoch), name))


@pytest.mark.parametrize("packing", ["pack", "pad"])
def test_the_older_text_is_read_whole_before_any_of_it_comes_again(packing: str) -> None:
    batches = mixed(0.4, packing=packing)
    alone = Batches(OLD, batches.data, TrainingConfig(global_batch_size=1, seed=3))
    rows = [
        tuple(batches.load(np.array([w]), e).tokens[0].tolist())
        for e, w in sequence(batches, 6)
        if w >= batches.main_windows
    ]
    every = np.arange(alone.windows)
    whole = len(rows) // alone.windows
    assert whole >= 2
    for number in range(whole):
        part = rows[number * alone.windows : (number + 1) * alone.windows]
        expected = map(tuple, alone.load(every, number).tokens.tolist())
        assert Counter(part) == Counter(expected)
    if packing == "pack":  # cut anew, in another order
        assert rows[: alone.windows] != rows[alone.windows : 2 * alone.windows]


@given(st.floats(0.02, 0.8), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_every_stretch_of_a_run_has_its_share_of_the_older_text(share: float, size: int) -> None:
    batches = mixed(share, size)
    of_epoch = [w >= batches.main_windows for e, w in sequence(batches, 1)]
    replayed = sum(of_epoch)
    # the nearest whole number of windows to the share of an epoch
    assert abs(replayed - share * len(of_epoch)) <= 0.5 or replayed == 1
    for step in range(batches.steps_per_epoch):
        windows = batches.step_windows(step)
        wanted = len(windows) * replayed / len(of_epoch)
        assert abs(int((windows >= batches.main_windows).sum()) - wanted) < 1
    seen = Counter(sequence(batches, 2))
    assert set(seen.values()) == {1} and len(seen) == 2 * batches.windows


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_batch_is_the_same_for_any_number_of_processes(world_size: int) -> None:
    batches = mixed(0.3, size=7)
    for step in range(2 * batches.steps_per_epoch):
        whole = batches.batch(step)
        shares = [batches.batch(step, rank, world_size) for rank in range(world_size)]
        kept = [share for share in shares if share.target_count]
        assert sum(share.target_count for share in shares) == whole.target_count
        tokens = torch.cat([share.tokens for share in kept])
        assert torch.equal(tokens[: len(whole.tokens)], whole.tokens)


def test_epochs_count_the_new_text_and_tokens_count_both() -> None:
    batches, alone = (
        mixed(0.25),
        Batches(NEW, mixed(0.25).data, TrainingConfig(global_batch_size=5)),
    )
    one = TrainingConfig(global_batch_size=5, epochs=1.0)
    windows = batches.windows_before(batches.total_steps(one))
    assert windows == batches.windows
    assert windows == pytest.approx(alone.windows / 0.75, abs=1)  # new / (1 - share)
    tokens = TrainingConfig(global_batch_size=5, tokens=40 * 8)
    assert batches.windows_before(batches.total_steps(tokens)) == 40


def test_noise_and_dropout_differ_between_replayed_and_main_windows_and_epochs() -> None:
    data, training = DataConfig(max_seq_len=8), TrainingConfig(global_batch_size=5, seed=3)
    noise = InputNoise(0.5, np.arange(3, 64))
    batches = Batches(NEW, data, training, noise=noise, mixture=Mixture((Part(OLD, 0.3),)))
    first, later = (batches.load(np.arange(batches.windows), epoch) for epoch in (0, 1))
    assert first.row_seeds is not None and later.row_seeds is not None
    seeds = [*first.row_seeds.tolist(), *later.row_seeds.tolist()]
    assert len(set(seeds)) == len(seeds)
    clean = mixed(0.3).load(np.arange(batches.windows), 0)
    changed = (first.tokens != clean.tokens)[batches.main_windows :]
    assert 0.2 < float(changed.float().mean()) < 0.8
    assert torch.equal(first.targets, clean.targets)


def test_documents_of_both_texts_are_found_by_their_windows() -> None:
    batches = mixed(0.3)
    begins = {id(s): np.append(s.documents, len(s)) for s in (NEW, OLD)}
    windows = batches.step_windows(0)
    new = windows[windows < batches.main_windows]
    documents = {
        int(d)
        for w in new
        for d in np.searchsorted(begins[id(NEW)], np.arange(w * 8, w * 8 + 9), side="right") - 1
    }
    assert batches.documents_of(windows, 0) == sorted(documents & set(range(60)))
    (replayed,) = batches.mixed_documents_of(windows, 0)
    held = batches.load(windows[windows >= batches.main_windows], 0)
    tokens = Counter(held.tokens[held.targets != IGNORE_INDEX].tolist())
    inside = Counter(
        int(t) for d in replayed for t in OLD.tokens[slice(*begins[id(OLD)][[d, d + 1]])]
    )
    assert replayed and not tokens - inside
    assert mixed(0.3).mixed_documents_of(new, 0) == [[]]


def test_a_short_older_text_is_read_many_times_in_an_epoch() -> None:
    old = ListStream([[1, *range(3, 20), 2]])
    batches = mixed(0.5, old=old)
    assert batches.windows == 2 * batches.main_windows
    rows = batches.load(np.arange(batches.main_windows, batches.windows), 0).targets
    assert int((rows == 10).sum()) == pytest.approx(len(rows) / 3, abs=1)
