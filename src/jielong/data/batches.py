"""Training batches as a pure function of the step, which is the loader's only state."""

from __future__ import annotations

import bisect
import math
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.mixture import MixedWindows, Mixture
from jielong.data.noise import BpeDropout, InputNoise
from jielong.data.shard_blocks import windows_of
from jielong.data.shuffle import random_bits
from jielong.data.windows import Row, Stream, Windows

_NOISE, _DROPOUT = 2, 3  # keys that set random bits for different ends apart


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch, or a micro-batch of it.

    Shapes: tokens, targets and document_ids (B, T); targets are the tokens shifted by one, −100
    if ignored. `windows` (B,) are the window numbers of the rows, by which their text is found.
    `row_seeds` (B,) int64 differ between windows and epochs; dropout's masks follow from them.
    """

    tokens: Tensor
    targets: Tensor
    document_ids: Tensor | None
    windows: np.ndarray
    row_seeds: Tensor | None = None

    @property
    def target_count(self) -> int:
        return int((self.targets != IGNORE_INDEX).sum())

    def split(self, micro_batches: int) -> list[Batch]:
        """Split the rows, in order, into `micro_batches` of nearly equal size.

        If there are fewer rows, each extra micro-batch is a row with all targets ignored, so that
        every rank runs the same number of passes.
        """
        if micro_batches == 1:
            return [self]
        parts = np.array_split(np.arange(len(self.tokens)), micro_batches)
        return [self.rows(rows) for rows in parts]

    def rows(self, chosen: np.ndarray) -> Batch:
        """Return the chosen rows; if none are, the first row with all targets ignored."""
        kept = chosen if len(chosen) else np.zeros(1, np.int64)
        ids = None if self.document_ids is None else self.document_ids[kept]
        seeds = None if self.row_seeds is None else self.row_seeds[kept]
        batch = Batch(self.tokens[kept], self.targets[kept], ids, self.windows[kept], seeds)
        if not len(chosen):
            batch.targets.fill_(IGNORE_INDEX)  # a copy, since indexing by array copies
        return batch


@dataclass(frozen=True)
class Span:
    """A range of an epoch's order: `count` windows from position `first` on."""

    epoch: int
    first: int
    count: int


class Batches:
    """The training batches of a split, by step: slices of the order of its windows.

    An epoch has all windows of the split, and with `mixture` its share of other texts as well.
    """

    def __init__(
        self,
        stream: Stream,
        data: DataConfig,
        training: TrainingConfig,
        warmup_sizes: Sequence[int] = (),
        noise: InputNoise | None = None,
        bpe_dropout: BpeDropout | None = None,
        mixture: Mixture | None = None,
        noise_steps: int | None = None,
    ) -> None:
        """Lay out the epochs.

        Args:
            training: only `seed` and `global_batch_size`, the windows of a step, are used.
            warmup_sizes: windows in each of the first steps, if the batch size warms up.
            noise: replaces some input tokens.
            bpe_dropout: splits some tokens.
            mixture: other texts that are mixed in.
            noise_steps: steps in which noise and BPE-dropout act; all, if not given.
        """
        self.stream, self.data, self.seed = stream, data, training.seed
        self.noise, self.noise_steps = noise, noise_steps
        main = windows_of(stream, data, training.seed)
        self.source = main if mixture is None else MixedWindows(main, mixture)
        self._noisy_source = self.source  # for the steps with noise
        if bpe_dropout is not None:
            noisy = windows_of(stream, data, training.seed, bpe_dropout)
            self._noisy_source = noisy if mixture is None else MixedWindows(noisy, mixture)
        self.windows = self.source.count  # of an epoch
        self.main_windows = main.count  # those of the split itself
        self.passes = 1.0 if mixture is None else mixture.passes
        assert training.global_batch_size is not None, "resolve() fills it in"
        self.global_batch_size = training.global_batch_size
        self.steps_per_epoch = -(-self.windows // self.global_batch_size)
        self.warmup_spans: list[Span] = []
        self.full_size_from = (0, 0)  # epoch and position where steps of the full size begin
        for size in warmup_sizes:
            epoch, first = self.full_size_from
            count = min(size, self.windows - first)
            self.warmup_spans.append(Span(epoch, first, count))
            end = first + count
            self.full_size_from = (epoch, end) if end < self.windows else (epoch + 1, 0)

    def total_steps(self, training: TrainingConfig) -> int:
        """Return the run's budget in steps, from whichever of steps, tokens and epochs is given."""
        if training.steps is not None:
            return training.steps
        if training.tokens is not None:
            wanted = training.tokens / self.data.max_seq_len
        else:
            wanted = training.epochs * self.passes * self.windows
        warmup = len(self.warmup_spans)
        steps = bisect.bisect_left(range(warmup), wanted, key=self.windows_before)
        if steps < warmup:
            return max(1, steps)
        left = wanted - self.windows_before(warmup)
        if training.tokens is not None:
            return max(1, steps + round(left / self.global_batch_size))
        rest = -self.windows_before(warmup) % self.windows  # of the epoch where the warm-up ends
        if left <= rest:
            return max(1, steps + math.ceil(left / self.global_batch_size))
        steps += -(-rest // self.global_batch_size)
        return max(1, steps + round((left - rest) / self.windows * self.steps_per_epoch))

    def span(self, step: int) -> Span:
        """Return the windows of the global batch at `step`, as a range of an epoch's order."""
        if step < len(self.warmup_spans):
            return self.warmup_spans[step]
        step -= len(self.warmup_spans)
        epoch, first = self.full_size_from
        steps_left = -(-(self.windows - first) // self.global_batch_size)  # in that epoch
        if step < steps_left:
            first += step * self.global_batch_size
        else:
            more, position = divmod(step - steps_left, self.steps_per_epoch)
            epoch, first = epoch + 1 + more, position * self.global_batch_size
        return Span(epoch, first, min(self.global_batch_size, self.windows - first))

    def windows_before(self, step: int) -> int:
        """Return the number of windows trained on before `step`, over all epochs."""
        span = self.span(step)
        return span.epoch * self.windows + span.first

    def ordered(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the windows at `places` of an epoch's order, in which each occurs exactly once."""
        return self.source.ordered(epoch, places)

    def offset(self, epoch: int) -> int:
        """Return the token of the split at which an epoch's first window begins.

        With `shuffle_shards` there is none: each shard is cut at another token.
        """
        main = self.source.main if isinstance(self.source, MixedWindows) else self.source
        assert isinstance(main, Windows)
        return main.offset(epoch)

    def step_windows(self, step: int) -> np.ndarray:
        """Return the windows of the global batch at `step`; the last of an epoch may be smaller."""
        span = self.span(step)
        return self.ordered(span.epoch, np.arange(span.first, span.first + span.count))

    def expect(self, step: int) -> None:
        """Tell the texts that the batch at `step` is read next; their shards may be elsewhere."""
        span = self.span(step)
        self.source.expect(span.epoch, span.first)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return this rank's share of the global batch at `step`, on the CPU.

        The tokens of a step do not depend on the number of ranks. A rank without a window gets one
        with all targets ignored, since all ranks must take part.
        """
        span, windows = self.span(step), self.step_windows(step)
        share = np.array_split(windows, world_size)[rank]
        own = share if len(share) else windows[:1]
        batch = self.load(own, span.epoch, self.is_noisy(step))
        return batch if len(share) else batch.rows(share)

    def documents_of(self, windows: np.ndarray, epoch: int) -> list[int]:
        """Return the documents, by index in the split, that have tokens in an epoch's windows."""
        return self.source.documents_of(windows, epoch)

    def mixed_documents_of(self, windows: np.ndarray, epoch: int) -> list[list[int]]:
        """Return the same of each text that is mixed in, by index in its training split."""
        if not isinstance(self.source, MixedWindows):
            return []
        parts = range(len(self.source.parts))
        return [self.source.documents_of_part(part, windows, epoch) for part in parts]

    def is_noisy(self, step: int) -> bool:
        """Return whether noise and BPE-dropout, if there are any, act at `step`."""
        return self.noise_steps is None or step < self.noise_steps

    def row(self, window: int, epoch: int, noisy: bool) -> Row:
        """Return a window of an epoch; where `noisy`, some tokens are split by BPE-dropout."""
        return (self._noisy_source if noisy else self.source).row(window, epoch)

    def load(self, windows: np.ndarray, epoch: int = 0, noisy: bool = True) -> Batch:
        """Return the batch of the given windows of an epoch, with noise and BPE-dropout or not."""
        rows = [self.row(int(w), epoch, noisy) for w in windows]
        tokens, targets, ids = (np.stack(column) for column in zip(*rows, strict=True))
        if self.noise and noisy:
            T = tokens.shape[1]
            places = windows[:, None] * T + np.arange(T)
            bits = random_bits(places, self.seed, epoch, _NOISE)
            tokens = self.noise.replace(tokens, bits)
        masked = self.data.document_mask and self.data.packing == "pack"
        seeds = random_bits(windows, self.seed, epoch, _DROPOUT) >> np.uint64(2)  # below 2^62
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(targets),
            torch.from_numpy(ids) if masked else None,
            windows,
            torch.from_numpy(seeds.astype(np.int64)),
        )


def prefetch(
    batches: Batches, steps: range, rank: int = 0, world_size: int = 1, workers: int = 0
) -> Generator[Batch, None, None]:
    """Yield this rank's batch of each step, built `workers` steps ahead in threads.

    The batches are the same for any number of workers. What is expected of the texts is said here,
    in the order of the steps, of the earliest that is not built yet: the threads' own order is
    anyone's, and what an earlier step still reads must not make room for a later one.
    """
    if not workers:
        for step in steps:
            batches.expect(step)
            yield batches.batch(step, rank, world_size)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        ahead: list[Future[Batch]] = []
        try:
            for place, step in enumerate(steps):
                if len(ahead) > workers:
                    yield ahead.pop(0).result()
                batches.expect(steps[place - len(ahead)])
                ahead.append(pool.submit(batches.batch, step, rank, world_size))
            for step in steps[len(steps) - len(ahead) :]:
                batches.expect(step)
                yield ahead.pop(0).result()
        finally:
            for future in ahead:
                future.cancel()
