"""The setting `data.replay`: older text that is mixed into a run, and its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jielong.errors import ConfigError

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
