"""The run folder: its lock and its stored settings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from jielong.config.load import load_toml
from jielong.config.settings import FIELDS, Config, same_setting
from jielong.errors import ConfigError
from jielong.runtime.atomic import write_file
from jielong.runtime.files import check_local


class RunFolder:
    """Paths of a run's files: config.toml, metrics.jsonl, checkpoints/ and what it is made from."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.chosen_file = self.path / "chosen.toml"  # what `--minutes` and `--dtype auto` choose
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.tokenizer = self.path / "tokenizer"
        self.data = self.path / "data"
        self.teachers = self.path / "teachers"  # runs of their own, by number
        self.replay = self.path / "replay"
        self.rank_log = self.path / "ranks.jsonl"  # of several processes
        self.profile = self.path / "profile"
        self.remote_dataset = self.path / "remote_dataset.json"

    @property
    def started(self) -> bool:
        """Whether the folder holds anything that depends on the settings."""
        return any(path.exists() for path in (self.tokenizer, self.data, self.checkpoints))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other processes; the kernel releases a dead process's lock.

        If the command fails before it produces anything, folders created here are removed again.

        Raises:
            ConfigError: another process uses the folder, or it cannot be written.
        """
        check_local(self.path)
        holder = self.path / "holder.json"
        new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
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
            choices = {".lock", self.config_file.name, self.chosen_file.name}
            if new and {p.name for p in self.path.iterdir()} <= choices:
                shutil.rmtree(self.path, ignore_errors=True)
                for parent in new[1:]:  # unless something else is there by now
                    with contextlib.suppress(OSError):
                        parent.rmdir()
            lock.release()

    def in_use(self) -> bool:
        """Return whether a process holds the folder's lock; nothing is written.

        The lock is tried only where a process says that it holds it, and may have died since: to
        try it takes it for a moment, and a run that starts then would be refused.
        """
        file = self.path / ".lock"
        if not (self.path / "holder.json").is_file() or not file.is_file():
            return False
        holder = self.holder()
        if holder is not None and not _is_alive(holder):
            return False
        lock = filelock.FileLock(file, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            return True
        except OSError:  # not ours to write
            return True
        lock.release()
        return False

    def holder(self) -> int | None:
        """Return the process of this machine that says it has locked the folder, if one does."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            record = json.loads((self.path / "holder.json").read_text())
            return int(record["pid"]) if record["host"] == socket.gethostname() else None
        return None

    def check_config(self, config: Config, override: bool = False) -> None:
        """Store a new run's settings; check a started run's settings against the stored ones.

        With `override`, a started run's settings are stored later, by `write_config`, once the run
        has accepted them.

        Raises:
            ConfigError: fields that alter the result differ from the stored ones; lists them all.
        """
        if self.config_file.exists() and self.started and not override:
            stored = self.stored_config().flat()
            changes = [
                f"  {FIELDS[name].label}: {_shown(stored[name])} in the run, now {_shown(value)}"
                for name, value in config.flat().items()
                if not same_setting(name, stored[name], value) and not FIELDS[name].metadata["free"]
            ]
            if changes:
                raise ConfigError(
                    f"{self.path} already holds a run with other settings:\n"
                    + "\n".join(changes)
                    + "\nuse another --out-dir, the run's settings, or --override to continue with "
                    "the new settings"
                )
        if not (self.started and override):
            self.write_config(config)

    def stored_config(self) -> Config:
        """Read the settings that the run last started with."""
        return Config().with_values(**load_toml(self.config_file))

    def write_config(self, config: Config) -> None:
        """Write config.toml atomically."""
        write_file(self.config_file, config.to_toml().encode())


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine has the number `pid`."""
    if os.name == "nt":  # where a signal of 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True
