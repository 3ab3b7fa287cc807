"""Remote datasets of a run: whether the cache has room for what is read, and what comes first."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from jielong.data.batches import Batches
from jielong.data.remote_dataset import RemoteDataset, RemoteStream
from jielong.data.shard_cache import ShardCache
from jielong.data.sources.remote import shown_address
from jielong.errors import ConfigError
from jielong.training.texts import RunTexts

PROGRESS_S = 5.0


def caches_of(texts: RunTexts) -> list[ShardCache]:
    """Return the caches of the texts whose shards are elsewhere."""
    datasets = [text.dataset for text in texts.every]
    return [dataset.cache for dataset in datasets if isinstance(dataset, RemoteDataset)]


def fetch_first(
    texts: RunTexts,
    batches: Batches,
    step: int,
    log: Callable[[str], None],
    beat: Callable[[], None],
) -> None:
    """Fetch what is read at `step`, before it: within a step other ranks wait only so long.

    Args:
        log: takes a line for the user.
        beat: called, while this rank waits for a file, with each sign that it goes on.

    Raises:
        ConfigError: the cache cannot hold what is read at a time.
        DataError: a shard cannot be fetched, or is damaged.
    """
    caches = caches_of(texts)
    if not caches:
        return
    batches.expect(step)
    _check_room(caches, batches.data.shuffle_shards is not None)
    missing = [_missing(cache) for cache in caches]  # before any is on its way
    with contextlib.ExitStack() as at_end:
        for cache in caches:
            cache.beat = beat
            cache.start()
            at_end.callback(cache.wind_down)  # what follows first reads what is here
        for cache, names in zip(caches, missing, strict=True):
            _fetch(cache, names, log, begins=step == 0)


@contextlib.contextmanager
def fetching_ahead(caches: Sequence[ShardCache]) -> Iterator[None]:
    """Within, what the batches will read is fetched in the background."""
    try:
        for cache in caches:
            cache.start()
        yield
    finally:
        for cache in caches:
            cache.rest()


def stays_here(texts: RunTexts) -> list[tuple[int, int]]:
    """Return the stretches of the main training text that can be read again and again.

    That is all of it, but of a remote one that the cache does not hold only the shards that are
    read now: the others would be fetched each time.
    """
    dataset = texts.main.dataset
    everything = [(0, len(dataset.train))]
    if not isinstance(dataset, RemoteDataset) or not isinstance(dataset.train, RemoteStream):
        return everything
    cache = dataset.cache
    beside = sum(other.bytes_of(other.plan) for other in caches_of(texts) if other is not cache)
    fits = cache.bytes_of(cache.files) + beside <= cache.room.limit
    return everything if fits else dataset.train.read_now()


def _check_room(caches: Sequence[ShardCache], in_blocks: bool) -> None:
    room = caches[0].room
    needed = sum(cache.bytes_of(cache.plan) for cache in caches)
    if needed <= room.limit:
        return
    what = "two blocks of shards" if in_blocks else "each step reads from all of the text"
    fix = f"give --cache-gb {needed / 1e9:.3g} or more"
    if in_blocks:
        fix += ", or a smaller --shuffle-shards"
    elif fitting := _shards_that_fit(caches, room.limit):
        fix += (
            f", or --shuffle-shards {fitting}, which shuffles within blocks of so many shards "
            "instead: another order of the text, the same everywhere"
        )
    address = shown_address(caches[0].address)
    raise ConfigError(
        f"{address}: {what}: {needed / 1e9:.3g} GB, but {room.root} may have "
        f"{room.limit / 1e9:.3g} GB: {fix}"
    )


def _shards_that_fit(caches: Sequence[ShardCache], limit: int) -> int:
    """Return of how many shards of each text two blocks fit, beside what is always needed."""
    left = limit - sum(cache.bytes_of(cache.fixed) for cache in caches)
    largest = [max(cache.bytes_of([name]) for name in cache.now) for cache in caches]
    return max(0, left // (2 * sum(largest)))


def _missing(cache: ShardCache) -> set[str]:
    """Return which files of those that are read first are not here."""
    first = cache.fixed + cache.now
    return {name for name in first if not (cache.folder / name).exists()}


def _fetch(
    cache: ShardCache, missing: Collection[str], log: Callable[[str], None], begins: bool
) -> None:
    """Fetch what is read first, and say how far it is; where a run goes on, only what is new."""
    total, size = cache.bytes_of(missing), cache.bytes_of(cache.files)
    if missing or begins:
        log(
            f"shards     {shown_address(cache.address)}: {len(cache.files)} files, "
            f"{size / 1e9:.3g} GB; copies in {cache.folder}, "
            f"of all datasets at most {cache.room.limit / 1e9:.3g} GB"
        )
    if missing:
        log(f"shards     {len(missing)} files are fetched first, {total / 1e9:.3g} GB")
    begun, told, fetched = time.monotonic(), 0.0, 0
    cache.quiet = True
    for name in cache.fixed + cache.now:
        cache.path(name)
        fetched += cache.bytes_of([name]) if name in missing else 0
        seconds = time.monotonic() - begun
        if fetched < total and seconds - told >= PROGRESS_S:
            told, rate = seconds, fetched / seconds
            left = (total - fetched) / max(rate, 1.0)
            log(
                f"fetched {fetched / 1e9:.3g} of {total / 1e9:.3g} GB ({rate / 1e6:.1f} MB/s, "
                f"{left / 60:,.1f} min left)"
            )
    cache.quiet = False
