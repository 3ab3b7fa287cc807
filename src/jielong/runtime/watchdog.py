"""Finds the rank that hangs or has died, names it, and ends the run on all ranks.

A thread of each rank tells the others, through the store at which they met, that its process lives
and how many collectives it has begun. Each rank listens to the next one, in a ring, so that the
store has little to do however many there are. A rank that does not go on in what has a limit of
time prints the stacks of its threads; the others end without a word of their own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from jielong.errors import AnotherRankError, TrainingError, first_line
from jielong.runtime.questions import Questions, UnreachableError

POLL_S = 0.5
GRACE_S = 5.0  # in which a rank may end by itself, once another has failed
FIRST_TIME = 5  # times as long for what is done first: libraries load, kernels compile
ALL_HANG = "no rank goes on"
SILENT_POLLS = 6  # after which a rank that was cut off mid-word counts as dead
LONGEST_POLL_S = 3.0
_BROKEN = re.compile(r"gloo|nccl|TCPStore|connection (closed|reset|refused)|broken pipe", re.I)


def is_broken_connection(error: BaseException) -> bool:
    """Whether an error means that another process has gone: a consequence, never the cause."""
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError | dist.DistStoreError):
        return True
    return type(error) is RuntimeError and bool(_BROKEN.search(str(error)))


class Watchdog:
    """This rank's part of the watch over all ranks."""

    def __init__(self, store: Store, rank: int, world_size: int, timeout_s: float) -> None:
        """Tell the other ranks who this is, and wait until they have done so.

        Args:
            store: common to the ranks of this start alone.
            timeout_s: seconds without progress, or without a word, after which a rank has failed.
        """
        # a connection of its own: whoever waits for a key keeps a connection to himself
        own: Store = PrefixStore("watch", store.clone())  # type: ignore[attr-defined]
        self.rank, self.world_size, self.timeout_s = rank, world_size, timeout_s
        self.last_words: Callable[[str], None] = lambda why: None  # before the process is ended
        self.collectives = self.beats = 0
        self.what: str | None = None  # is being done under a limit
        self.left = False  # all has been said
        self.done_before: set[str] = set()
        self.ended = threading.Event()
        own.set(f"alive/{rank}", "0 0")
        own.set(f"who/{rank}", f"{socket.gethostname()} {os.getpid()}")
        self.hosts = {r: own.get(f"who/{r}").decode().split() for r in range(world_size)}
        self.store = Questions(own)
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()

    def beat(self) -> None:
        """Say that this rank goes on."""
        self.beats += 1

    def meets(self) -> None:
        """Say that a collective begins."""
        self.collectives += 1

    @contextlib.contextmanager
    def limit(self, what: str | None) -> Iterator[None]:
        """Within, `timeout_s` without progress means that this rank hangs; None lifts the limit."""
        self.what, before = what, self.what
        self.beats += 1
        try:
            yield
        finally:
            self.done_before.add(_kind(what))
            self.what = before
            self.beats += 1

    def first_error(self, error: BaseException) -> BaseException:
        """What this rank says of an error: the error itself, only if no other rank failed before.

        Of ranks that are cut off by one that died without a word, the first says which it was.
        """
        if self.left or isinstance(error, AnotherRankError):
            return AnotherRankError()
        with contextlib.suppress(UnreachableError):  # as where rank 0 had the store, and ended
            if is_broken_connection(error):
                error = TrainingError(self._why_cut_off())
            if not self._claim(first_line(error)):
                return AnotherRankError()
            self._wait_until_seen()
            return error
        if is_broken_connection(error):
            return TrainingError(f"{self._name(0)} has ended, or cannot be reached any more")
        return error

    def stop(self) -> None:
        """End the watch; the others do not miss this rank."""
        self.ended.set()
        self.thread.join(GRACE_S)  # at once, unless the store is slow; its last word must be ours
        with contextlib.suppress(UnreachableError):
            self._set("ended")

    # ── what the thread does ──────────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        polls, silent, idle = 0, 0.0, 0.0
        heard, seen, looked = "", (-1, -1), time.monotonic()
        longest = max(2 * POLL_S, min(LONGEST_POLL_S, self.timeout_s / 4))
        file = _error_file()
        while True:
            if file is not None:  # from C, should a thread that hangs keep the GIL from this one
                faulthandler.dump_traceback_later(self.timeout_s + 3 * POLL_S, file=file)
            if self.ended.wait(POLL_S):
                break
            polls += 1
            try:
                self._set(f"{polls} {self.collectives}")
                if (failed := self._verdict()) is not None:
                    self._leave(*failed)
                    return
                now = self.store.ask(lambda store: store.get(f"alive/{self._next}")).decode()
                reached = True
            except UnreachableError:
                now, reached = heard, False
            # no poll takes longer, unless all ranks were suspended: then no time has passed
            passed = min(time.monotonic() - looked, longest)
            looked = time.monotonic()
            silent = 0.0 if now != heard or now == "ended" else silent + passed
            heard = now
            state = self.beats, self.collectives
            moves = state != seen or self.what is None
            idle = 0.0 if moves else idle + passed
            seen = state
            if silent > self.timeout_s:
                self._leave(None, self._silence(reached))
                return
            known = _kind(self.what) in self.done_before
            patience = self.timeout_s * (1 if known else FIRST_TIME)
            if idle > patience:
                self._hang(patience)
        if file is not None:
            faulthandler.cancel_dump_traceback_later()

    @property
    def _next(self) -> int:
        return (self.rank + 1) % self.world_size

    def _set(self, life: str) -> None:
        self.store.ask(lambda store: store.set(f"alive/{self.rank}", life))

    def _lives(self) -> list[str]:
        keys = [f"alive/{rank}" for rank in range(self.world_size)]
        return [value.decode() for value in self.store.ask(lambda store: store.multi_get(keys))]

    def _name(self, rank: int) -> str:
        host, pid = self.hosts[rank]
        return f"rank {rank} (process {pid} on {host})"

    def _silence(self, reached: bool) -> str:
        """Who has said nothing, and why that may be.

        Args:
            reached: whether the store answers. Where it does not, that says nothing of the next
                rank: rank 0, on whose machine the store is, is out of reach.
        """
        rank = self._next if reached else 0
        if rank == self.rank:
            return f"the ranks' store has said nothing for {self.timeout_s:g} s: is torchrun there?"
        host, pid = self.hosts[rank]
        why = "its process, its machine or the network has stopped"
        if host == socket.gethostname():
            why = process_state(int(pid))
        return f"{self._name(rank)} has said nothing for {self.timeout_s:g} s: {why}"

    def _verdict(self) -> tuple[int, str] | None:
        """The first rank that failed and what it said, once one has."""
        if not self.store.ask(lambda store: store.check(["failed"])):
            return None
        rank, text = self.store.ask(lambda store: store.get("failed")).decode().split(" ", 1)
        return int(rank), text

    def _claim(self, text: str) -> bool:
        """Whether this rank is the first that has failed; then `text` is what the others learn."""
        mine = f"{self.rank} {text}"
        first = self.store.ask(lambda store: store.compare_set("failed", "", mine))
        return first.decode() == mine

    def _hang(self, seconds: float) -> None:
        """End this rank, which does not go on, unless it only waits for one that does not."""
        with contextlib.suppress(UnreachableError):  # else the silence tells
            others = [int(life.split()[1]) for life in self._lives() if life != "ended"]
            if self.collectives > min(others, default=0):
                return
            # where collectives hide within a pass, as in FSDP's, all may have begun as many
            who = ALL_HANG if self.collectives == max(others) else self._name(self.rank)
            text = (
                f"{who}: {seconds:g} s in {self.what} without progress. The checkpoints so far are "
                "sound; --rank-timeout sets how long to wait"
            )
            if self._claim(text):  # another may have been first: the next poll ends this one
                _say(f"error: {text}. The stacks of {self._name(self.rank)}:")
                _dump()
                self._wait_until_seen()
                self._exit(text)

    def _leave(self, said_by: int | None, text: str) -> None:
        """End this rank, since one has failed: by an error in its main thread, else at once.

        Args:
            said_by: the rank that has told of it; none: this one has found out.
        """
        faulthandler.cancel_dump_traceback_later()
        found = said_by is None
        with contextlib.suppress(UnreachableError):
            if said_by is None:
                found = self._claim(text)
            elif said_by != self.rank:
                self.left = True
                self.store.ask(lambda store: store.add("seen", 1))
        if found:
            self.left = True
            _say(f"error: {text}; the checkpoints so far are sound")
        elif ALL_HANG in text and said_by != self.rank:
            _say(f"The stacks of {self._name(self.rank)}:")
            _dump()
        # the main thread may wait for a rank that is stopped: nothing ends such a call of gloo
        if not self.ended.wait(GRACE_S):
            self._exit(text)

    def _exit(self, why: str) -> None:
        with contextlib.suppress(Exception):
            self.last_words(why)
        os._exit(2)

    # ── what the main thread does at its end ─────────────────────────────────────────────────

    def _why_cut_off(self) -> str:
        """Which rank has died, as the connection to it broke and none has said why."""
        before = self._lives()
        for _ in range(SILENT_POLLS):
            if self._verdict() is not None:
                return ""  # the claim will fail
            self.ended.wait(POLL_S)
        pairs = enumerate(zip(before, self._lives(), strict=True))
        dead = [r for r, (then, now) in pairs if then == now != "ended" and r != self.rank]
        names = " and ".join(self._name(rank) for rank in dead)
        if not dead:
            return "the connection between the ranks broke, though all are alive: see the network"
        why = "killed, or out of memory, or its machine or the network failed"
        return f"{names} ended without a word: {why}"

    def _wait_until_seen(self) -> None:
        """Stay until the others know, where this process has the store: they ask it."""
        if self.rank or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return
        for _ in range(SILENT_POLLS):
            if self.store.ask(lambda store: store.add("seen", 0)) >= self.world_size - 1:
                return
            self.ended.wait(POLL_S)


def process_state(pid: int) -> str:
    """What the system says of a process of this machine."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return "its process has ended" if Path("/proc/self/status").exists() else "it hangs"
    except OSError:
        return "it hangs"
    found = re.search(r"^State:\s+\S+ \((.+)\)$", status, re.M)
    if found and found[1] in ("zombie", "dead"):
        return "its process has ended"
    if found and "stop" not in found[1]:
        return f"its process is there ({found[1]}), but hangs, or the network is cut"
    return f"its process is {found[1]}" if found else "it hangs"


def _error_file() -> IO[str] | None:
    """Where standard error goes, or went at first, if stacks can be written there."""
    for file in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError):
            if file is not None and file.fileno() >= 0:
                return file
    return None


def _dump() -> None:
    if (file := _error_file()) is not None:
        faulthandler.dump_traceback(file)


def _kind(what: str | None) -> str:
    return what.split()[0] if what else ""


def _say(text: str) -> None:
    """Print to standard error from a thread, while the main thread may hang."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
