"""The cleaned text on disk: JSONL files of bounded size, and their checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from jielong.cleaning.staging import Place
from jielong.data.shard_writer import HashedFile

SHARD_BYTES = 2**28  # after which another file is begun


class TextWriter:
    """Writes texts with where each comes from, one a line, to 00000.jsonl, 00001.jsonl and so on.

    Attributes:
        texts, bytes: texts written, and their bytes in UTF-8.
        files: the entry of each finished file, by name.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.texts = self.bytes = 0
        self.files: dict[str, dict[str, Any]] = {}
        self._folder, self._shard_bytes = folder, shard_bytes
        self._file: HashedFile | None = None
        self._in_file = 0

    def write(self, text: str, place: Place) -> None:
        """Append a text."""
        if self._in_file >= self._shard_bytes:
            self.close()
        if self._file is None:
            self._file = HashedFile(self._folder / f"{len(self.files):05d}.jsonl")
        line = orjson.dumps({"text": text, "source": str(place)}) + b"\n"
        self._file.write(line)
        self._in_file += len(line)
        self.texts += 1
        self.bytes += len(text.encode())

    def close(self) -> None:
        """Finish the present file."""
        if self._file is not None:
            self._file.close()
            self.files[self._file.path.name] = self._file.entry
            self._file, self._in_file = None, 0
