"""What a preparation leaves out: listed in a file, counted, and refused where it is too much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from jielong.data.shard_writer import HashedFile
from jielong.data.sources.items import BadLine, Document, Item, Remark
from jielong.data.sources.losses import Losses
from jielong.errors import DataError

BAD_LINES = "bad-lines.jsonl"


class LeftOut:
    """Lists what is left out in a file, which exists only if there is any.

    Args:
        strict: the first thing left out is an error.
        allow_loss: any share may be left out.

    Attributes:
        losses: the account of the text that is read now.
        accounts: the finished and present accounts, by part of the dataset.
    """

    def __init__(self, folder: Path, strict: bool, allow_loss: bool) -> None:
        self.losses = Losses()
        self.accounts: dict[str, Losses] = {}
        self._path, self._strict, self._allow_loss = folder / BAD_LINES, strict, allow_loss
        self._file: HashedFile | None = None

    def begin(self, part: str) -> None:
        """Begin the account of a part of the dataset."""
        self.losses = self.accounts[part] = Losses(self._allow_loss)

    def documents(self, part: str, items: Iterable[Item]) -> Iterator[Document]:
        """Begin the account of a part of the dataset, and yield its documents."""
        self.begin(part)
        yield from self.losses.documents(items, self._list)

    def replay(self, found: Iterable[tuple[int, BadLine | Remark]], read_bytes: int) -> None:
        """Account for what was found while text was read, and list what is left out.

        Args:
            found: each with the bytes of the documents read before it.
            read_bytes: bytes of the documents after the last one.

        Raises:
            DataError: with `strict`, anything was left out; or much too much was.
        """
        self.losses.replay(found, self._list)
        self.losses.read_bytes += read_bytes

    @property
    def count(self) -> int:
        """Lines, rows and files left out so far."""
        return sum(losses.count for losses in self.accounts.values())

    def summary(self) -> str:
        """Say why there is no text, for the end of an error."""
        bad = self.losses.first
        if bad is None:
            return ": every source is empty"
        return f": {self.losses.count:,} bad lines, the first {bad.message}"

    def record(self) -> dict[str, Any]:
        """Return the accounts as JSON can hold them."""
        return {part: losses.record() for part, losses in self.accounts.items()}

    def close(self) -> None:
        """Finish the list.

        Raises:
            DataError: too much was left out of a part, and that is not allowed.
        """
        for losses in self.accounts.values():
            losses.check()
        if self._file is not None:
            self._file.close()

    def _list(self, bad: BadLine) -> None:
        if self._strict:
            raise strict_error(bad)
        if self._file is None:
            self._file = HashedFile(self._path)
        row = {"file": bad.source, "line": bad.line, "reason": bad.reason}
        self._file.write(orjson.dumps(row | {"kind": bad.kind, "bytes": bad.size}) + b"\n")


def check_again(folder: Path, manifest: dict[str, Any], strict: bool, allow_loss: bool) -> None:
    """Check what a dataset made before left out, as if it were made now.

    Raises:
        DataError: with `strict`, anything was left out; or too much was, and that is not allowed.
    """
    if strict and manifest["counts"]["bad_lines"]:
        with (folder / BAD_LINES).open("rb") as file:
            raise strict_error(BadLine(*orjson.loads(file.readline()).values()))
    for losses in accounts_of(manifest, allow_loss).values():
        losses.check()


def accounts_of(manifest: dict[str, Any], allow_loss: bool = False) -> dict[str, Losses]:
    """Return the accounts that a dataset's manifest holds; an older one has none."""
    records = manifest.get("left_out", {})
    if not isinstance(records, dict):
        raise DataError("dataset.json: its account of what was left out is damaged: prepare again")
    return {part: Losses.of_record(record, allow_loss) for part, record in records.items()}


def strict_error(bad: BadLine) -> DataError:
    """Return the error that `strict` stops with."""
    return DataError(f"{bad.message} (data.strict stops at the first)")
