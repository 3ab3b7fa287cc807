"""The settings `data.mixture`, several texts with their shares, and `data.replay`, an older one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jielong.config.data import DataConfig
from jielong.errors import ConfigError

MIXTURE_USAGE = "write --data wiki=0.7:PATH --data code=0.3:PATH, or wiki=epochs=2:PATH"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it becomes a folder
USAGE = "write --replay PATH=SHARE, e.g. --replay old.jsonl=0.2"


@dataclass(frozen=True)
class ReplaySetting:
    """What `PATH=SHARE` says."""

    path: str  # as one of data_path: a file, folder, glob, sample:NAME, or a prepared dataset
    share: float  # of the run's windows, above 0 and below 1

    @classmethod
    def parse(cls, text: str) -> ReplaySetting:
        """Read `PATH=SHARE`; the path may have further equals signs.

        Raises:
            ConfigError: it is not of that form, or the share is not between 0 and 1.
        """
        path, equals, share = text.strip().rpartition("=")
        if not equals or not path:
            raise ConfigError(f"data.replay={text!r} has no {'path' if equals else '='}: {USAGE}")
        if path == "-":
            raise ConfigError(
                "data.replay: standard input cannot be replayed; name a file or folder"
            )
        try:
            number = float(share)
        except ValueError:
            raise ConfigError(
                f"data.replay={text!r}: the share {share!r} is not a number: {USAGE}"
            ) from None
        if not 0 < number < 1:
            raise ConfigError(
                f"data.replay={text!r}: the share {share} must be above 0 and below 1, as 0.2 for "
                "a fifth of the training text"
            )
        return cls(path, number)


@dataclass(frozen=True)
class MixtureSource:
    """What `NAME=SHARE:PATH` or `NAME=epochs=N:PATH` says."""

    name: str
    weight: float | None  # of the run's windows, beside the other sources' weights
    epochs: float | None  # how often it is read while the mixture is read once
    path: str

    @classmethod
    def parse(cls, text: str) -> MixtureSource:
        """Read one source of a mixture; the path may have further colons and equals signs.

        Raises:
            ConfigError: it is not of that form, or its number is not above 0.
        """
        name, equals, rest = text.strip().partition("=")
        amount, colon, path = rest.partition(":")
        if not equals or not colon or not path:
            raise ConfigError(f"data.mixture={text!r} has not all its parts: {MIXTURE_USAGE}")
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"data.mixture={text!r}: the name {name!r} may have letters, digits, _ - and . only"
            )
        if path == "-":
            raise ConfigError("data.mixture: standard input cannot be a part: name a file")
        kind, given, number = amount.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if (given and kind != "epochs") or not 0 < value < math.inf:
            raise ConfigError(
                f"data.mixture={text!r}: {amount!r} is no share above 0, nor epochs=N: "
                f"{MIXTURE_USAGE}"
            )
        return cls(name, None if given else value, value if given else None, path)

    def elsewhere(self, path: str | Path) -> str:
        """Return the setting that says the same of another path."""
        amount = self.weight if self.epochs is None else f"epochs={self.epochs}"
        return f"{self.name}={amount}:{path}"


def check_mixture(data: DataConfig) -> None:
    """Check `data.mixture` by itself and beside the other settings of the text.

    Raises:
        ConfigError: as `MixtureSource.parse`, or the settings contradict each other.
    """
    sources = [MixtureSource.parse(text) for text in data.mixture]
    names = [source.name for source in sources]
    if len(names) < 2:
        raise ConfigError(f"data.mixture has one source, {names[0]}: give two, or --data-path")
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"data.mixture names {doubled[0]!r} twice: give each source its own name")
    if len({source.epochs is None for source in sources}) > 1:
        raise ConfigError(
            "data.mixture gives shares of some sources and epochs of others: give all the same"
        )
    for name in ("data_path", "validation_path", "replay"):
        if getattr(data, name):
            more = {"validation_path": "; each source holds out a part of itself"}.get(name, "")
            raise ConfigError(f"data.mixture and data.{name} are both given: give one{more}")
    for at, source in enumerate(sources):
        for other in sources[:at]:
            if _same_place(source.path, other.path):
                raise ConfigError(
                    f"data.mixture: {other.name} and {source.name} are the same text, {source.path}"
                )


def replay_share(text: str | None) -> float:
    """Return the share of the older text that `data.replay` says; 0 without it."""
    return 0.0 if text is None else ReplaySetting.parse(text).share


def check_replay(text: str, data_path: Sequence[str]) -> None:
    """Check `data.replay` by itself and beside the new text.

    Raises:
        ConfigError: as `ReplaySetting.parse`, or it names the new text.
    """
    path = ReplaySetting.parse(text).path
    if any(_same_place(path, new) for new in data_path):
        raise ConfigError(
            f"data.replay={text!r} names the text of data.data_path: give --replay the older text"
        )


def _same_place(a: str, b: str) -> bool:
    """Whether two sources are one, however their paths are written."""
    return a == b or (Path(a).exists() and Path(b).exists() and Path(a).samefile(b))
