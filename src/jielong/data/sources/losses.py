"""The account of what reading left out: how often, how many bytes, and what share of the text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jielong.data.sources.items import (
    NO_TOKENS,
    PART,
    WHOLE_FILE,
    BadLine,
    Document,
    Item,
    Remark,
)
from jielong.errors import DataError

WARN_SHARE = 0.01
STOP_SHARE = 0.2
ENOUGH_BYTES = 2**26  # read, to stop before the end where so much of it was left out
NAMED_FILES = 3  # that a note names
KEPT_FILES = 1000  # that the record of a dataset lists


class TooMuchLostError(DataError):
    """A fifth of the text or more would be left out."""


class Losses:
    """Counts what was read and what was left out, in bytes and by kind.

    Args:
        allow_loss: any share may be left out.

    Attributes:
        read_bytes: bytes of text found, whether kept or not.
        counts, bytes: by kind, how many lines, rows or files were left out, and their bytes.
        remarks: how files were read where their names do not say so; by text, their number and the
            names of the first.
        first: what was left out first; what loses nothing, such as an empty text, comes last.
    """

    def __init__(self, allow_loss: bool = False) -> None:
        self.allow_loss = allow_loss
        self.read_bytes = 0
        self.counts: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.remarks: dict[str, tuple[int, list[str]]] = {}
        self.first: BadLine | None = None

    def documents(
        self, items: Iterable[Item], each: Callable[[BadLine], None] = lambda bad: None
    ) -> Iterator[Document]:
        """Yield the documents; count everything, and call `each` with what is left out.

        Raises:
            TooMuchLostError: so much of a first large part is left out that reading on is vain.
        """
        for item in items:
            if isinstance(item, Document):
                self.read_bytes += item.size or len(item.text.encode())
                yield item
            elif isinstance(item, BadLine):
                self.add(item)
                each(item)
                self._check_early()
            else:
                self._remark(item)

    def replay(
        self, found: Iterable[tuple[int, BadLine | Remark]], each: Callable[[BadLine], None]
    ) -> None:
        """Count what was found while documents were read elsewhere.

        Args:
            found: what was found, each with the bytes of the documents read before it.
            each: called with what is left out.

        Raises:
            TooMuchLostError: as `documents` does, at the same place.
        """
        for size, item in found:
            self.read_bytes += size
            if isinstance(item, Remark):
                self._remark(item)
                continue
            self.add(item, was_read=item.kind == NO_TOKENS)
            each(item)
            self._check_early()

    def add(self, bad: BadLine, was_read: bool = False) -> None:
        """Count what is left out; with `was_read` it has been counted as a document."""
        self.read_bytes += 0 if was_read else bad.size
        self.counts[bad.kind] += 1
        self.bytes[bad.kind] += bad.size
        if self.first is None or (_is_harmless(self.first) and not _is_harmless(bad)):
            self.first = bad

    def _remark(self, remark: Remark) -> None:
        count, files = self.remarks.get(remark.text, (0, []))
        if count < KEPT_FILES:
            files.append(remark.source)
        self.remarks[remark.text] = (count + 1, files)

    @property
    def count(self) -> int:
        return self.counts.total()

    @property
    def lost_bytes(self) -> int:
        return self.bytes.total()

    @property
    def share(self) -> float:
        """Share of the text that was left out, in bytes."""
        return self.lost_bytes / max(self.read_bytes, 1)

    def summary(self) -> str:
        """Say in one line how much was left out, and why."""
        if not self.counts:
            return "nothing"
        kinds = ", ".join(_counted(kind, count) for kind, count in sorted(self.counts.items()))
        return f"{self.lost_bytes:,} bytes, {_percent(self.share)} of the text ({kinds})"

    def notes(self) -> list[str]:
        """Return the remarks, each with the files that it is about."""
        notes = []
        for text, (count, files) in self.remarks.items():
            more = f" and {count - NAMED_FILES:,} more" if count > NAMED_FILES else ""
            notes.append(f"{', '.join(files[:NAMED_FILES])}{more}: {text}")
        return notes

    def warning(self) -> str | None:
        """Return the first thing left out, if much was left out, or a whole file."""
        if self.first is None or (self.share < WARN_SHARE and WHOLE_FILE not in self.counts):
            return None
        return self.first.message

    def lines(self) -> list[str]:
        """Say how much was left out, if anything was, and how files were read."""
        left_out = [f"left out: {self.summary()}; first {self.first.message}"] if self.first else []
        return left_out + self.notes()

    def check(self) -> None:
        """Refuse to go on without a large part of the text.

        Raises:
            TooMuchLostError: a fifth of the text or more was left out, and that is not allowed.
        """
        if self.share >= STOP_SHARE:
            self._refuse("")

    def _check_early(self) -> None:
        """Stop after a first large part: nobody should wait for the end of a text that is unusable.

        Files that are left out whole do not count: the others may be sound.
        """
        lines = self.lost_bytes - self.bytes[WHOLE_FILE]
        read = self.read_bytes - self.bytes[WHOLE_FILE]
        if read >= ENOUGH_BYTES and lines >= STOP_SHARE * read:
            self._refuse(f" of the first {read / 1e6:,.0f} MB")

    def _refuse(self, of: str) -> None:
        if self.first is not None and not self.allow_loss:
            raise TooMuchLostError(
                f"too much text{of} would be left out: {self.summary()}; the first is "
                f"{self.first.message}. Mend that, or go on without it: --allow-loss"
            )

    def record(self) -> dict[str, Any]:
        """Return the account as JSON can hold it."""
        kinds = sorted(self.counts)
        return {
            "read_bytes": self.read_bytes,
            "left_out": {k: {"count": self.counts[k], "bytes": self.bytes[k]} for k in kinds},
            "first": self.first and dataclasses.asdict(self.first),
            "remarks": self.remarks,
        }

    @classmethod
    def of_record(cls, record: dict[str, Any], allow_loss: bool = False) -> Losses:
        """Return the account that `record` made.

        Raises:
            DataError: it is damaged.
        """
        losses = cls(allow_loss)
        try:
            losses.read_bytes = int(record["read_bytes"])
            for kind, lost in record["left_out"].items():
                losses.counts[kind], losses.bytes[kind] = int(lost["count"]), int(lost["bytes"])
            losses.first = BadLine(**record["first"]) if record["first"] else None
            losses.remarks = {
                str(text): (int(count), list(map(str, files)))
                for text, (count, files) in record["remarks"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise DataError(
                "the dataset's account of what was left out is damaged: prepare it again"
            ) from None
        return losses


def _is_harmless(bad: BadLine) -> bool:
    return not bad.size and bad.kind != WHOLE_FILE


def _counted(kind: str, count: int) -> str:
    many = "s" if count > 1 else ""
    return (
        f"{count:,} {kind}{many}" if kind in (WHOLE_FILE, PART) else f"{count:,} line{many} {kind}"
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 or not share else "less than 0.1%"
