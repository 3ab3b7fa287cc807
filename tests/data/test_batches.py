"""Batches are arithmetic: what a step trains on, whoever asks and however often."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.batches import Batch, Batches, prefetch
from jielong.data.noise import InputNoise
from tiny import ListStream, random_documents

documents = st.lists(
    st.lists(st.integers(3, 60), max_size=12).map(lambda ids: [1, *ids, 2]), min_size=1, max_size=20
)


def batches_of(
    docs: list[list[int]],
    window: int = 8,
    global_batch_size: int = 6,
    seed: int = 7,
    **data: object,
) -> Batches:
    return Batches(
        ListStream(docs),
        DataConfig(max_seq_len=window, **data),  # type: ignore[arg-type]
        TrainingConfig(global_batch_size=global_batch_size, seed=seed),
    )


def target_places(batch: Batch, batches: Batches, epoch: int) -> list[int]:
    """Places in the stream of all tokens that a packed batch predicts."""
    rows, columns = (batch.targets != IGNORE_INDEX).nonzero(as_tuple=True)
    places = torch.from_numpy(batch.windows)[rows] * batches.data.max_seq_len + columns + 1
    return ((places + batches.offset(epoch)) % len(batches.stream)).tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("window", [2, 8, 1000])
def test_an_epoch_predicts_every_token_once_but_the_first_of_each_document(
    world_size: int, window: int
) -> None:
    docs = random_documents(50, longest=15)
    batches = batches_of(docs, window)
    starts = set(batches.stream.documents.tolist())
    for epoch in range(3):
        # where whole windows end at the last token but one of the ring, its first is no target
        whole = (len(batches.stream) - 1) % window == 0
        firsts = starts | ({batches.offset(epoch)} if whole else set())
        seen: Counter[int] = Counter()
        for position in range(batches.steps_per_epoch):
            step = epoch * batches.steps_per_epoch + position
            for rank in range(world_size):
                seen.update(target_places(batches.batch(step, rank, world_size), batches, epoch))
        assert seen == Counter(set(range(len(batches.stream))) - firsts)


def test_epochs_differ_and_seeds_differ_and_shuffle_can_be_off() -> None:
    docs = random_documents(50, longest=15)
    batches = batches_of(docs)
    every = np.arange(batches.windows)
    first, second = batches.ordered(0, every).tolist(), batches.ordered(1, every).tolist()
    assert sorted(first) == sorted(second) == every.tolist()
    assert first != second != every.tolist()
    assert first != batches_of(docs, seed=8).ordered(0, every).tolist()
    still = batches_of(docs, shuffle=False)
    assert still.ordered(0, every).tolist() == still.ordered(1, every).tolist() == every.tolist()


def equal(a: Batch, b: Batch) -> bool:
    ids = (a.document_ids, b.document_ids)
    same_ids = all(i is None for i in ids) or torch.equal(*ids)  # type: ignore[arg-type]
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.targets, b.targets) and same_ids


def test_a_step_has_the_same_batch_whatever_was_asked_before() -> None:
    docs = random_documents(60, longest=15)
    one, other = batches_of(docs), batches_of(docs)
    steps = range(3 * one.steps_per_epoch)
    forward = {step: one.batch(step) for step in steps}
    backward = {step: other.batch(step) for step in reversed(steps)}
    assert all(equal(forward[step], backward[step]) for step in steps)


@pytest.mark.parametrize("packing", ["pack", "pad"])
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_together_have_the_batch_of_one(packing: str, world_size: int) -> None:
    batches = batches_of(random_documents(40, longest=15), packing=packing)
    for step in range(batches.steps_per_epoch):
        whole = batches.batch(step)
        shares = [batches.batch(step, rank, world_size) for rank in range(world_size)]
        counts = [share.target_count for share in shares]
        assert sum(counts) == whole.target_count
        full = [share for share, count in zip(shares, counts, strict=True) if count]
        for name in ("tokens", "targets"):
            joined = torch.cat([getattr(share, name) for share in full])
            assert torch.equal(joined, getattr(whole, name))


@given(documents, st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_windows_give_back_the_stream(docs: list[list[int]], window: int) -> None:
    batches = batches_of(docs, window, shuffle=False)
    stream = np.concatenate([np.array(doc) for doc in docs])
    batch = batches.load(np.arange(batches.windows))
    assert batch.document_ids is not None
    tokens = batch.tokens.flatten().numpy()
    assert tokens.shape == (batches.windows * window,)
    covered = min(len(tokens), len(stream))
    assert len(stream) - covered <= 1  # the last token may be a target alone
    assert (tokens[:covered] == stream[:covered]).all()
    belongs = np.repeat(np.arange(len(docs)), [len(doc) for doc in docs])
    targets = batch.targets.flatten().numpy()
    for place, target in enumerate(targets):
        after = place + 1
        counts = after < len(stream) and belongs[place] == belongs[after]
        assert target == (stream[after] if counts else IGNORE_INDEX)
    for row, ids in enumerate(batch.document_ids.numpy()):
        inside = belongs[row * window : row * window + window]
        same = ids[: len(inside), None] == ids[None, : len(inside)]
        assert (same == (inside[:, None] == inside[None, :])).all()


@given(documents, st.integers(4, 20))
@settings(max_examples=40, deadline=None)
def test_a_padded_row_is_a_document_with_its_middle_cut_out(
    docs: list[list[int]], length: int
) -> None:
    batches = batches_of(docs, length, packing="pad")
    assert batches.windows == len(docs)
    batch = batches.load(np.arange(len(docs)))
    assert batch.document_ids is None
    for doc, tokens, targets in zip(docs, batch.tokens, batch.targets, strict=True):
        kept = doc if len(doc) <= length else [*doc[: length - 1], doc[-1]]
        count = len(kept) - 1
        assert tokens[:count].tolist() == kept[:-1]
        assert targets[:count].tolist() == kept[1:]
        assert (targets[count:] == IGNORE_INDEX).all()
        assert (tokens >= 0).all()


def test_the_last_batch_of_an_epoch_is_what_is_left() -> None:
    batches = batches_of([[1, *[5] * 78, 2]])  # 80 tokens: 79 targets: 10 windows of 8
    assert batches.windows == 10 and batches.steps_per_epoch == 2
    assert [len(batches.batch(step).tokens) for step in range(3)] == [6, 4, 6]
    last = batches_of([[1, *[5] * 78, 2]], global_batch_size=4)
    assert len(last.batch(2, rank=0, world_size=3).tokens) == 1
    assert last.batch(2, rank=2, world_size=3).target_count == 0  # takes part, counts nothing


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_read_ahead_are_the_same(workers: int, rank: int) -> None:
    batches = batches_of(random_documents(60, longest=15))
    steps = range(2, 2 * batches.steps_per_epoch + 1)
    in_line = list(prefetch(batches, steps, rank, 2, workers=0))
    ahead = list(prefetch(batches, steps, rank, 2, workers=workers))
    assert len(in_line) == len(ahead) == len(steps)
    assert all(map(equal, in_line, ahead))


def test_an_error_while_reading_ahead_reaches_the_reader_and_ends_the_threads() -> None:
    class Broken(ListStream):
        def read(self, start: int, stop: int) -> np.ndarray:
            raise OSError("the disk is gone")

    batches = Batches(
        Broken([[1, 5, 2]] * 40), DataConfig(max_seq_len=8), TrainingConfig(global_batch_size=4)
    )
    with pytest.raises(OSError, match="the disk is gone"):
        next(prefetch(batches, range(5), workers=2))


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"steps": 7}, 7),
        ({"tokens": 480}, 10),  # 48 tokens a step
        ({"tokens": 1}, 1),
        ({"epochs": 1.0}, 2),
        ({"epochs": 2.5}, 5),
        ({"epochs": 0.01}, 1),
    ],
)
def test_the_budget_in_steps(budget: dict[str, float], steps: int) -> None:
    batches = batches_of([[1, *[5] * 78, 2]])  # 10 windows, 6 a step
    training = TrainingConfig(global_batch_size=6, **budget)  # type: ignore[arg-type]
    assert batches.total_steps(training) == steps


def test_a_stream_of_one_token_is_one_window_without_targets() -> None:
    batches = batches_of([[1]])
    assert batches.batch(0).target_count == 0 and batches.windows == 1


def test_the_order_of_an_epoch_does_not_depend_on_the_size_of_its_batches() -> None:
    docs = random_documents(60, longest=15)
    orders = []
    for size in (1, 6, 1000):
        batches = batches_of(docs, global_batch_size=size)
        steps = [batches.step_windows(step).tolist() for step in range(batches.steps_per_epoch)]
        orders.append([window for windows in steps for window in windows])
    assert orders[0] == orders[1] == orders[2]


def test_a_step_of_a_huge_split_takes_memory_for_its_own_windows_only() -> None:
    class Huge:
        documents = np.array([0])

        def __len__(self) -> int:
            return 2**50 + 1

        def read(self, start: int, stop: int) -> np.ndarray:
            raise AssertionError("nothing is read to tell which windows come")

    tracemalloc.start()
    batches = Batches(
        Huge(), DataConfig(max_seq_len=1024), TrainingConfig(global_batch_size=64, seed=7)
    )
    steps = [batches.step_windows(step) for step in (0, 1, batches.steps_per_epoch - 1, 2**34 + 5)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batches.windows == 2**40
    assert peak < 2**20
    assert [len(np.unique(windows)) for windows in steps] == [64] * 4
    assert len(np.unique(steps[:3])) == 3 * 64  # of one epoch
    assert all(windows.max() < 2**40 for windows in steps)


@given(
    documents,
    st.lists(st.integers(1, 9), max_size=6),
    st.integers(1, 3),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_first_steps_of_other_sizes_leave_each_epoch_whole(
    docs: list[list[int]], sizes: list[int], batch_size: int, world_size: int
) -> None:
    stream, data = ListStream(docs), DataConfig(max_seq_len=4)
    training = TrainingConfig(global_batch_size=batch_size, epochs=2)
    batches = Batches(stream, data, training, sizes)
    total = batches.total_steps(training)
    steps = [batches.step_windows(step).tolist() for step in range(total)]
    seen = Counter(window for windows in steps for window in windows)
    assert seen == Counter(dict.fromkeys(range(batches.windows), 2))
    first = steps[0]
    assert len(first) == min(sizes[0] if sizes else batch_size, batches.windows)
    assert batches.windows_before(total) == 2 * batches.windows
    for step, windows in enumerate(steps):
        shares = [batches.batch(step, rank, world_size) for rank in range(world_size)]
        assert sum(share.target_count for share in shares) == sum(
            batches.load(np.array([w]), batches.span(step).epoch).target_count for w in windows
        )


def test_each_epoch_cuts_its_windows_anew_unless_the_order_is_fixed() -> None:
    docs = random_documents(50, longest=15)
    batches = batches_of(docs)
    offsets = [batches.offset(epoch) for epoch in range(20)]
    assert offsets[0] == 0 and len(set(offsets)) > 15
    assert offsets == [batches_of(docs).offset(epoch) for epoch in range(20)]
    assert offsets != [batches_of(docs, seed=8).offset(epoch) for epoch in range(20)]
    every = np.arange(batches.windows)
    rows = {tuple(row) for e in range(4) for row in batches.load(every, e).tokens.tolist()}
    assert len(rows) > 2 * batches.windows
    fixed = batches_of(docs, shuffle=False)
    first, second = (fixed.load(every, epoch).tokens for epoch in (0, 1))
    assert first.equal(second)


def test_a_window_across_the_end_of_the_stream_goes_on_at_its_beginning() -> None:
    docs = random_documents(50, longest=15)
    batches = batches_of(docs)
    total, T = len(batches.stream), 8
    ring = np.tile(batches.stream.tokens.astype(np.int64), 2)
    belongs = np.repeat(np.arange(len(docs)), [len(d) for d in docs])
    for epoch in range(1, 30):
        offset = batches.offset(epoch)
        window = (total - offset) // T  # the one that holds the last token of the stream
        start = offset + window * T
        batch = batches.load(np.array([window]), epoch)
        count = min(T, total - window * T)
        assert batch.tokens[0, :count].tolist() == ring[start : start + count].tolist()
        inside = (np.arange(start, start + count)) % total
        expected = sorted(set(belongs[inside].tolist()))
        assert set(expected) <= set(batches.documents_of(np.array([window]), epoch))
        ids = batch.document_ids
        assert ids is not None
        assert int(ids[0, count - 1]) == len(expected) - 1


def test_noise_replaces_its_share_of_the_inputs_and_nothing_else() -> None:
    docs = random_documents(400, longest=40)
    plain, special = batches_of(docs, window=64), np.array([0, 1, 2])
    noise = InputNoise(0.25, np.setdiff1d(np.arange(64), special))
    noisy = Batches(
        plain.stream, plain.data, TrainingConfig(global_batch_size=6, seed=7), (), noise
    )
    every = np.arange(plain.windows)
    first, second = (noisy.load(every, epoch) for epoch in (0, 1))
    before = plain.load(every)
    assert first.targets.equal(before.targets)
    assert first.tokens.equal(noisy.load(every, 0).tokens)
    changed = first.tokens != before.tokens
    ordinary = ~torch.isin(before.tokens, torch.from_numpy(special))
    share = float(changed[ordinary].float().mean())
    assert 0.22 < share < 0.27 and not changed[~ordinary].any()  # some are replaced by themselves
    assert not torch.isin(first.tokens[changed], torch.from_numpy(special)).any()
    again = second.tokens != plain.load(every, 1).tokens
    assert not again.equal(changed)
    alone = noisy.load(every[5:7], 0)  # the same in any batch
    assert alone.tokens.equal(first.tokens[5:7])
    assert alone.row_seeds is not None and first.row_seeds is not None
    assert alone.row_seeds.equal(first.row_seeds[5:7])


def test_a_budget_in_tokens_counts_the_first_steps_by_their_size() -> None:
    batches = Batches(
        ListStream(random_documents(400, longest=20)),
        DataConfig(max_seq_len=8),
        TrainingConfig(global_batch_size=10),
        [1, 2, 4],
    )
    for tokens, steps in ((1, 1), (8, 1), (8 * 3, 2), (8 * 7, 3), (8 * 17, 4), (8 * 27, 5)):
        training = TrainingConfig(global_batch_size=10, tokens=tokens)
        assert batches.total_steps(training) == steps, tokens
    assert [batches.span(step).count for step in range(5)] == [1, 2, 4, 10, 10]
    assert batches.windows_before(5) == 27
