"""Windows shuffled within blocks of shards: each comes once an epoch, a few shards at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jielong.config.load import load_config
from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.batches import Batches, prefetch
from jielong.data.mixture import Mixture, Part
from jielong.data.shard_blocks import BlockWindows, ShardStream
from jielong.data.shard_writer import ShardWriter
from jielong.data.shards import TokenStream, token_dtype
from jielong.errors import ConfigError
from tiny import random_documents

T = 8


def stream_of(folder: Path, shard_tokens: int, documents: int = 40, seed: int = 0) -> TokenStream:
    folder.mkdir()
    writer = ShardWriter(folder, "train", 64, shard_tokens)
    for document in random_documents(documents, 30, seed):
        writer.write(np.array(document), [len(document)], 0)
    return TokenStream(folder, writer.close()[0], token_dtype(64))


def windows_of(stream: TokenStream, shards: int, packing: str = "pack") -> BlockWindows:
    data = DataConfig(max_seq_len=T, packing=packing, shuffle_shards=shards)
    return BlockWindows(stream, data, seed=7)


@pytest.mark.parametrize("packing", ["pack", "pad"])
@pytest.mark.parametrize("shards", [1, 2, 3, 100])
@pytest.mark.parametrize("shard_tokens", [7, 50, 64, 10_000])
def test_an_epoch_has_each_window_once_and_a_block_of_shards_at_a_time(
    shard_tokens: int, shards: int, packing: str, tmp_path: Path
) -> None:
    stream = stream_of(tmp_path / "set", shard_tokens)
    windows = windows_of(stream, shards, packing)
    orders = []
    for epoch in range(3):
        order = windows.ordered(epoch, np.arange(windows.count))
        assert sorted(order) == list(range(windows.count))
        parts = np.array_split(np.arange(windows.count), 5)
        assert (np.concatenate([windows.ordered(epoch, part) for part in parts]) == order).all()
        blocks, seen, expected = list[list[int]](), set[int](), list[int]()
        for place, window in enumerate(order):
            now, soon = windows.shards_from(epoch, place)
            if not blocks or blocks[-1] != now:
                assert not blocks or now == expected  # as was said before
                assert not seen & set(now)
                blocks.append(now)
                seen |= set(now)
            expected = soon
            assert windows._shard_of(int(window)) in now and len(now) <= shards
        assert seen == set(range(len(stream.names)))
        orders.append(order.tolist())
    if windows.count > 20:
        assert orders[0] != orders[1] != orders[2] != orders[0]


def test_each_token_is_predicted_once_but_for_the_first_of_a_shard_or_document(
    tmp_path: Path,
) -> None:
    stream = stream_of(tmp_path / "set", 50)
    windows = windows_of(stream, 2)
    starts = set(stream.documents.tolist())
    for epoch in (0, 1, 2):
        targets = 0
        for window in windows.ordered(epoch, np.arange(windows.count)):
            tokens, wanted, _ = windows.row(int(window), epoch)
            known = wanted != IGNORE_INDEX
            assert (tokens[1:][known[:-1]] == wanted[:-1][known[:-1]]).all()
            targets += int(known.sum())
        cut = sum(border not in starts for border in range(50, len(stream), 50))
        # a document's first token is no target, nor that of its rest in the next shard
        assert targets == len(stream) - len(starts) - cut


def test_documents_are_found_by_their_number_in_the_whole_text(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "set", 50)
    windows = windows_of(stream, 2)
    found = windows.documents_of(np.arange(windows.count), 1)
    assert found == list(range(len(stream.documents)))
    for window in range(windows.count):
        tokens, _, ids = windows.row(window, 1)
        documents = windows.documents_of(np.array([window]), 1)
        bounds = [*stream.documents.tolist(), len(stream)]
        text = {t for d in documents for t in stream.read(bounds[d], bounds[d + 1]).tolist()}
        assert set(tokens.tolist()) - {0} <= text
        assert len(documents) <= int(ids.max()) + 2


def test_a_shard_is_a_stream_of_its_own(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "set", 50)
    shard = ShardStream(stream, 50, 100)
    assert len(shard) == 50
    assert (shard.read(3, 20) == stream.read(53, 70)).all()
    assert shard.documents[0] == 0
    assert set(shard.documents[1:] + 50) <= set(stream.documents.tolist())
    assert stream.documents[shard.first_document] <= 50


def test_batches_in_blocks_are_a_function_of_the_step_for_any_number_of_ranks(
    tmp_path: Path,
) -> None:
    stream, other = stream_of(tmp_path / "a", 50), stream_of(tmp_path / "b", 30, 20, seed=1)
    data = DataConfig(max_seq_len=T, shuffle_shards=2)
    training = TrainingConfig(global_batch_size=6)
    for mixture in (None, Mixture((Part(other, 0.3),))):
        batches, again = (Batches(stream, data, training, mixture=mixture) for _ in range(2))
        for step in (3, 40, 0, 17):
            whole = batches.batch(step)
            parts = [again.batch(step, rank, 2) for rank in range(2)]
            assert (np.concatenate([p.tokens for p in parts]) == whole.tokens.numpy()).all()


class Watched(TokenStream):
    """Notes what is expected of it, and what is read beside that."""

    expected: tuple[set[int], set[int]] = set(), set()

    def expect(self, now: Sequence[int], soon: Sequence[int]) -> None:
        self.expected = set(now), set(soon)
        if not self.said or self.said[-1] != (list(now), list(soon)):
            self.said.append((list(now), list(soon)))

    def read(self, start: int, stop: int) -> np.ndarray:
        time.sleep(random.choice([0, 0, 0.002]))  # so that threads overtake each other
        now, soon = self.expected
        shards = set(range(start // self.shard_tokens, (stop - 1) // self.shard_tokens + 1))
        if not shards <= now | soon:
            self.unexpected.append((start, stop))
        return super().read(start, stop)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_shards_are_expected_in_the_order_of_the_steps_whatever_threads_do(
    workers: int, tmp_path: Path
) -> None:
    made = stream_of(tmp_path / "set", 50)
    stream = Watched(made._folder, made._split, token_dtype(64))
    stream.said, stream.unexpected = [], []
    data = DataConfig(max_seq_len=T, shuffle_shards=3)  # a block is more than what is under way
    batches = Batches(stream, data, TrainingConfig(global_batch_size=2))
    steps = range(3, 3 * batches.steps_per_epoch)
    wanted = list[tuple[list[int], list[int]]]()
    for number, batch in zip(steps, prefetch(batches, steps, workers=workers), strict=True):
        span = batches.span(number)
        now, soon = map(list, batches.source.shards_from(span.epoch, span.first))
        assert stream.said[-1] == (now, soon)  # while a batch is used: those of its own step
        if not wanted or wanted[-1] != (now, soon):
            wanted.append((now, soon))
        assert (batch.windows == batches.step_windows(number)).all()
    assert stream.said == wanted
    assert stream.unexpected == []


def test_blocks_without_shuffling_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shuffle_shards .*shuffle=false"):
        load_config(shuffle=False, shuffle_shards=2)
