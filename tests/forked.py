"""Processes of Python as tests start them, without the seconds in which Python imports torch.

Each is a fork of one that has imported what a run needs and has done nothing else: it has one
thread, no generator of random numbers in use, and the signals of a new process. It is a process of
its own in all that tests do to it: signals, exit status, output, environment, `__main__`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

# what a run imports, at its start or later
PRELOADED = ["torch", "torch._dynamo", "torch.distributed.fsdp", "transformers"]
PRELOADED += ["jielong.api", "jielong.cli.main", "rich.live"]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(PRELOADED)


class Forked:
    """`python -c TEXT …` or `python -m MODULE …`, with the methods of `subprocess.Popen`.

    Args:
        words: what follows `python`.
        environment: of the process.
        merged: what it says of errors belongs to the rest of what it says.

    Attributes:
        paths: of the files of what it says, and what it says of errors.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], merged: bool = False
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        paths = [str(Path(self._folder.name) / name) for name in ("out", "err")]
        self.paths = paths[:1] * 2 if merged else paths
        for path in self.paths:
            Path(path).touch()
        arguments = (list(words), dict(environment), self.paths)
        self._process = _CONTEXT.Process(target=_become, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said, and what it said of errors, once it has ended."""
        self.wait(timeout)
        said, errors = (Path(path).read_text(encoding="utf-8") for path in self.paths)
        return (said, "") if self.paths[0] == self.paths[1] else (said, errors)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(words: list[str], environment: dict[str, str], paths: list[str]) -> None:
    """In the new process: be what `python` with these words is."""
    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [words[0], *words[2:]]
    if words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(words[1], "<string>", "exec"), vars(module))
