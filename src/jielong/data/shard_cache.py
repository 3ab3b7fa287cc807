"""The local copies of a remote dataset: fetched before they are read, once for all processes."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from jielong.data.cache_room import (
    Room,
    count_on,
    give_up,
    leaving_access_time,
    lock_of,
    partial_of,
    unusable,
)
from jielong.data.cached_file import is_sound, mark_sound
from jielong.data.shard_fetch import fetch
from jielong.data.sources.remote import shown_address
from jielong.errors import DataError

FETCHERS = 4  # files at a time: a server seldom sends one as fast as the network is
POLL_S = 0.25
IDLE_S = 1.0  # between two looks at whether there is room now
COUNT_S = 60.0  # between two times that a run says what it counts on
SLOW_S = 10.0  # of waiting for a file, after which it is said
STALLED_S = 300.0  # without a byte, of another process that fetches what is waited for


class StoppedError(Exception):
    """What was waited for is wanted no more."""


class ShardCache:
    """The copies that a process uses of one remote dataset.

    Attributes:
        address: of the dataset.
        folder: where the copies are.
        fixed: files that are needed all the time: where documents begin, and what is held out.
        beat: called, while a reader waits, with each sign that it goes on.
        quiet: say nothing of files that take long, as somebody shows how far it is.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        files: Mapping[str, dict[str, Any]],
        fixed: Sequence[str],
        room: Room,
    ) -> None:
        self.address, self.folder, self.room = address, folder, room
        self.files, self.fixed = files, tuple(fixed)
        self.beat: Callable[[], None] = lambda: None
        self.quiet = False
        self.now: tuple[str, ...] = ()  # what is read now, beside what is fixed
        self.soon: tuple[str, ...] = ()
        self._here = set[str]()  # checked by this process; may have had to make room since
        self._failed = set[str]()  # not fetched ahead again for a while, but when it is read
        self._warned = False
        self._expected = self._counted_ns = 0  # how often that was said, and when
        self._stop, self._enough = threading.Event(), threading.Event()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    @property
    def plan(self) -> tuple[str, ...]:
        """What is needed, the soonest first."""
        return self.fixed + self.now + self.soon

    def bytes_of(self, names: Iterable[str]) -> int:
        """Return how large files are together."""
        return sum(int(self.files[name]["bytes"]) for name in names)

    def is_here(self, name: str) -> bool:
        """Return whether a file can be read without waiting."""
        return name in self._here and (self.folder / name).exists()

    def expect(self, now: Sequence[str], soon: Sequence[str]) -> None:
        """Take note of what is read now and soon, beside what is fixed; the rest may go."""
        before = set(self.now + self.soon)
        self.now = tuple(now)
        self.soon = tuple(name for name in soon if name not in set(now))
        give_up([self.folder / name for name in before.difference(self.now, self.soon)])
        self._count()
        with self._changed:
            self._expected += 1
            self._failed.clear()
            self._changed.notify_all()

    def path(self, name: str) -> Path:
        """Return where a file is, once it is there and its content is that of the manifest.

        Raises:
            DataError: it cannot be fetched; the message names it and its address.
        """
        path = self.folder / name
        if name in self._here and not path.exists():
            self._here.discard(name)
            self._warn_of_size(name)
        if name not in self._here:
            self._get(name, must=True)
        return path

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, as `path` finds it. What is open stays readable."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # it has just made room for another
                return open(self.path(name), "rb", buffering=0, opener=leaving_access_time)

    def start(self) -> None:
        """Begin to fetch ahead what is expected, in the background."""
        if self._threads and not self._enough.is_set():
            return
        self._enough = threading.Event()
        events = self._stop, self._enough
        started = [
            threading.Thread(target=self._fetch_ahead, args=events, daemon=True)
            for _ in range(FETCHERS)
        ]
        self._threads = [thread for thread in self._threads if thread.is_alive()] + started
        for thread in started:
            thread.start()
        atexit.register(self.rest)  # a library's call must not outlive the interpreter

    def wind_down(self) -> None:
        """Fetch what is being fetched to its end, but nothing more."""
        self._enough.set()

    def rest(self) -> None:
        """Fetch nothing more ahead; whoever waits for a file in another thread is told so."""
        self._enough.set()
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(10)  # as a rule at once: between two blocks of a file
        self._threads, self._stop = [], threading.Event()
        atexit.unregister(self.rest)

    def _fetch_ahead(self, stop: threading.Event, enough: threading.Event) -> None:
        while not enough.is_set():
            expected, progress = self._expected, False
            for name in self.plan:
                self._count_if_due()
                if enough.is_set() or expected != self._expected:
                    break
                if name in self._here or name in self._failed:
                    continue
                try:
                    got = self._get(name, must=False)
                except StoppedError:
                    return
                except DataError:  # is told when the file is read, if it fails again
                    self._failed.add(name)
                    continue
                progress = progress or bool(got)
                if got is None:  # there is no room
                    break
            if not progress:
                with self._changed:
                    self._changed.wait(IDLE_S)

    def _count_if_due(self) -> None:
        """Say again what this run counts on, also while a slow file is fetched."""
        if time.time_ns() - self._counted_ns > COUNT_S * 1e9:
            self._count()
            self._failed.clear()

    def _count(self) -> None:
        self._counted_ns = time.time_ns()
        count_on([self.folder / name for name in self.plan], self._counted_ns)

    def _get(self, name: str, must: bool) -> bool | None:
        """Make sure that a file is here, and what the manifest says.

        Args:
            must: wait for whoever fetches it, and for its server; else it is fetched ahead.

        Returns:
            Whether it is; False: another fetches it now; None: there is no room for it.
        """
        stop, path, waiting = self._stop, self.folder / name, _Waiting(self, self.folder / name)
        try:
            with self._locked(waiting, must, stop) as is_mine:
                if not is_mine:
                    return False
                if not is_sound(path, self.files[name]):
                    if not self._take_room(waiting, must, stop):
                        return None
                    self._fetch(waiting, must, stop)
                self._here.add(name)
        except OSError as error:
            raise unusable(path, error) from None
        return True

    def _take_room(self, waiting: _Waiting, must: bool, stop: threading.Event) -> bool:
        name, plan = waiting.path.name, self.plan
        sooner = plan[: plan.index(name)] if name in plan else self.now
        keep = {self.folder / other for other in {*self.fixed, *sooner}}
        size, polls = self.bytes_of([name]), 0
        while True:
            found = self.room.take(waiting.path, size, keep, must)
            if found or not must:
                return bool(found)
            if found is False or polls * POLL_S > STALLED_S:
                raise DataError(
                    f"{shown_address(self.address)}/{name}: the {size / 1e9:.3g} GB of it have no "
                    f"room in {self.room.root}, which may have {self.room.limit / 1e9:.3g} GB: "
                    "give a larger --cache-gb"
                )
            polls += 1
            if stop.wait(POLL_S):
                raise StoppedError
            self.beat()

    def _fetch(self, waiting: _Waiting, must: bool, stop: threading.Event) -> None:
        path = waiting.path

        def pause(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                if stop.wait(min(left, 1.0)):
                    raise StoppedError
                partial_of(path).touch()  # shows others that somebody still tries
                self._count_if_due()
                if must:
                    self.beat()

        def goes_on() -> None:
            if stop.is_set():
                raise StoppedError
            self._count_if_due()
            if must:
                self.beat()
                waiting.tell()

        fetch(f"{self.address}/{path.name}", path, self.files[path.name], pause, goes_on)
        mark_sound(path)
        if path.name in (plan := self.plan):
            count_on([path], self._counted_ns, plan.index(path.name))

    @contextlib.contextmanager
    def _locked(self, waiting: _Waiting, must: bool, stop: threading.Event) -> Iterator[bool]:
        """Hold the lock of a file, so that it is fetched once; yield whether it is held."""
        lock = lock_of(waiting.path)
        while True:
            try:
                lock.acquire(timeout=POLL_S if must else 0)
                break
            except filelock.Timeout:
                if not must:
                    yield False
                    return
                if stop.is_set():
                    raise StoppedError from None
                waiting.look()
        try:
            yield True
        finally:
            lock.release()

    def _warn_of_size(self, name: str) -> None:
        if name in self.now and not self._warned:
            self._warned = True
            print(
                f"{self.room.root}: too small for all runs that use it, so shards are fetched "
                "again and again: give a larger --cache-gb, or each run its own JIELONG_CACHE",
                file=sys.stderr,
            )


class _Waiting:
    """A reader waits for a file: this thread fetches it, or another thread or process does."""

    def __init__(self, cache: ShardCache, path: Path) -> None:
        self.path = path
        self._cache, self._name = cache, f"{shown_address(cache.address)}/{path.name}"
        self._written = 0  # when the partial copy was written last
        self._begun, self._told = time.monotonic(), SLOW_S  # seconds after which it is said
        self._still = 0.0

    def tell(self) -> None:
        """Say so if it takes long, the more seldom the longer."""
        waited = time.monotonic() - self._begun
        if waited >= self._told:
            self._told *= 3
            if not self._cache.quiet:
                print(f"{self._name}: slow, waited {waited:.0f} s for it so far", file=sys.stderr)

    def look(self) -> None:
        """Take note of how far another is with it.

        Raises:
            DataError: it has not gone on for `STALLED_S`.
        """
        # counted in polls: no time passes while all processes of a machine are suspended
        self._still += POLL_S
        with contextlib.suppress(OSError):
            written = partial_of(self.path).stat().st_mtime_ns
            if written != self._written:
                self._written, self._still = written, 0.0
                self._cache.beat()
        self.tell()
        if self._still >= STALLED_S:
            raise DataError(
                f"{self._name}: another process fetches it, but has not gone on for "
                f"{STALLED_S:.0f} s: end the one that holds {lock_of(self.path).lock_file}"
            )
