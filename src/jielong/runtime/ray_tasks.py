"""Tasks on Ray: on a cluster, or on this machine. Imported only where Ray is asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any

from jielong.errors import ConfigError, JielongError, first_line

NEEDED = "--engine ray needs Ray: pip install 'jielong[ray]'"
RETRIES = 3  # of a task whose worker is lost, or hangs
REACH_S = 10.0  # to reach a cluster
SILENT_S = 60.0  # without a result, after which and after each as long again it is said
HUNG_S = 600.0  # without a result, after which a task is given to another worker
# of the shared memory in which tasks leave their results; Ray writes what does not fit to disk
STORE_BYTES_A_CPU, LEAST_STORE_BYTES = 2**27, 200 * 10**6


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start Ray on this machine; leave it at the end.

    Within a process that is connected already, that connection is used and kept.

    Args:
        address: HOST:PORT or auto; None starts Ray on this machine.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to Ray's makers
    # the default for the next version, without which a warning is printed
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError(NEEDED) from None
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        _check_reachable(address)
    try:
        if address is None:
            cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
            store = max(LEAST_STORE_BYTES, STORE_BYTES_A_CPU * (cpus or os.cpu_count() or 1))
            here = {"num_cpus": cpus, "object_store_memory": store, "include_dashboard": False}
            ray.init(address="local", **here, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:  # of many kinds
        where = "on this machine" if address is None else f"at {address}"
        raise ConfigError(f"Ray {where} cannot be reached: {first_line(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Look for a server at an address: Ray itself would try for five minutes.

    Raises:
        ConfigError: nothing answers there, or it is no address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except (ValueError, OverflowError):
        raise ConfigError(f"ray_address={address!r} is neither HOST:PORT nor auto") from None
    except OSError as error:
        raise ConfigError(
            f"Ray at {address} cannot be reached: {error.strerror or error}: is a cluster started "
            "there (ray start --head), and is this its port?"
        ) from None


def share(value: Any) -> list[Any]:
    """Put a value where all tasks find it; pass what this returns to them, for `shared`."""
    import ray

    return [ray.put((version("jielong"), value))]  # in a list: else each task would unpack it anew


_kept: dict[str, Any] = {}  # of the worker: what its tasks share


def shared(place: list[Any]) -> Any:
    """Return, in a task, what `share` was given; each worker unpacks it once.

    Raises:
        JielongError: this machine has another version of jielong.
    """
    import ray

    key = place[0].hex()
    if key not in _kept:
        os.environ.setdefault("RAYON_NUM_THREADS", "1")  # a task has one core
        theirs, value = ray.get(place[0])
        if theirs != (ours := version("jielong")):
            raise JielongError(
                f"a machine of the Ray cluster has jielong {ours}, not {theirs}: install the same "
                "version on all"
            )
        _kept.clear()
        _kept[key] = value
    return _kept[key]


def in_order(
    task: Callable[..., Iterator[Any]], calls: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], Iterator[Any]]]:
    """Call a generator function on Ray's workers; yield each call and what it yields, in order.

    Twice as many calls as there are cores are under way at most, so memory does not grow with their
    number. A call whose worker is lost, or gives nothing for HUNG_S, is made again, so it must
    yield the same each time.

    Raises:
        JielongError: a call failed; the error is the call's own, or says what was lost.
    """
    import ray

    remote = ray.remote(num_cpus=1, max_retries=RETRIES, num_returns="streaming")(task)
    under_way: deque[tuple[tuple[Any, ...], Any]] = deque()

    def first() -> tuple[tuple[Any, ...], Iterator[Any]]:
        call, references = under_way.popleft()
        return call, _results(references, lambda: remote.remote(*call))

    for call in calls:
        under_way.append((call, remote.remote(*call)))
        if len(under_way) >= most_under_way():
            yield first()
    while under_way:
        yield first()


def most_under_way() -> int:
    """Return how many tasks are given to the cluster at a time; it may grow and shrink."""
    import ray

    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _came(references: Any, may_end: bool) -> bool:
    """Wait for the next result of a task, and say so where it takes long.

    Returns:
        Whether it came; False after HUNG_S, if the wait may end.
    """
    import ray

    waited = 0.0
    while not ray.wait([references], timeout=SILENT_S)[0]:
        waited += SILENT_S
        is_over = may_end and waited >= HUNG_S
        ends = "it is ended and given to" if is_over else "what is ended is done again by"
        print(
            f"Ray: no result for {waited:,.0f} s: other work may have the cluster's cores, or a "
            "worker or a disk that it reads from hangs (`ray status` shows the first); "
            f"{ends} another worker",
            file=sys.stderr,
            flush=True,
        )
        if is_over:
            return False
    return True


def _results(references: Any, again: Callable[[], Any]) -> Iterator[Any]:
    """Yield the results of a task.

    Args:
        again: makes the task anew, where the one that was made hangs. It is not known whether it
            does, or only waits for a core: so that is done RETRIES times, and it never fails.

    Raises:
        JielongError: the task failed, or was lost too often.
    """
    import ray

    made = 1
    yielded = number = 0
    try:
        while True:
            if not _came(references, may_end=made <= RETRIES):
                ray.cancel(references, force=True)  # ends a worker that is stopped, too
                references, number = again(), 0
                made += 1
                continue
            try:
                reference = next(references)
            except StopIteration:
                return
            number += 1
            if number > yielded:  # else the task before has given it
                yielded = number
                yield ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, JielongError):
            raise error.cause from None
        if "ModuleNotFoundError" in str(error):
            raise JielongError(
                "a machine of the Ray cluster lacks jielong, or a package that it needs "
                f"({str(error).strip().splitlines()[-1]}): install it on all of them"
            ) from None
        raise
    except ray.exceptions.RayError as error:
        raise JielongError(
            f"a task of Ray was lost, and again each time that it was repeated "
            f"({type(error).__name__}: {first_line(error)}); a worker without enough memory is "
            "ended so: give it more, or fewer tasks at a time"
        ) from None
