"""The folder of a run: its lock, its settings, and whether they may change."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import filelock

from jielong.config.load import load_toml
from jielong.config.settings import FIELDS, Config
from jielong.errors import ConfigError


class RunFolder:
    """Where everything of a run is: config.toml, metrics.jsonl, checkpoints/, tokenizer/, data/."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tokenizer = self.path / "tokenizer"
        self.data = self.path / "data"

    @property
    def begun(self) -> bool:
        """Whether anything was made here that depends on the settings."""
        return any(path.exists() for path in (self.tokenizer, self.data, self.checkpoints))

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other processes from writing here; the system frees a dead holder's lock.

        A new folder in which nothing was made goes again: most often a setting was mistyped.

        Raises:
            ConfigError: another process holds the folder, or it cannot be written.
        """
        holder, new = self.path / "holder.json", not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            who = "another process"
            with contextlib.suppress(OSError, ValueError, KeyError):
                record = json.loads(holder.read_text())
                who = f"process {record['pid']} on {record['host']}"
            raise ConfigError(
                f"run.out_dir={self.path} is in use by {who}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"run.out_dir={self.path} cannot be written: {error.strerror}"
            ) from None
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            if new and {p.name for p in self.path.iterdir()} <= {".lock", self.config_file.name}:
                shutil.rmtree(self.path, ignore_errors=True)
            lock.release()

    def settle_config(self, config: Config, override: bool = False) -> None:
        """Writes the settings of a new run, or holds those of one begun to what they were.

        With `override` they are written later, by `write_config`, when the run has taken them.

        Raises:
            ConfigError: a field that alters the result differs from the run's; lists them all.
        """
        if self.config_file.exists() and self.begun and not override:
            stored = self.stored_config().flat()
            differences = [
                f"  {FIELDS[name].label}: {stored[name]!r} in the run, now {value!r}"
                for name, value in config.flat().items()
                if value != stored[name] and not FIELDS[name].metadata["free"]
            ]
            if differences:
                raise ConfigError(
                    f"{self.path} is a run with other settings:\n"
                    + "\n".join(differences)
                    + "\nuse another --out-dir, the run's settings, or --override to go on with "
                    "the new ones"
                )
        if not (self.begun and override):
            self.write_config(config)

    def stored_config(self) -> Config:
        """The settings that the run was last taken up with."""
        return Config().with_values(**load_toml(self.config_file))

    def write_config(self, config: Config) -> None:
        """Writes config.toml, whole or not at all."""
        temporary = self.config_file.with_suffix(".toml.partial")
        temporary.write_text(config.to_toml(), encoding="utf-8")
        temporary.replace(self.config_file)


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGUSR1 into a wish to stop; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> StopSignals:
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
                number = getattr(signal, name, None)  # Windows has no SIGUSR1
                if number is not None:
                    self.previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = number
