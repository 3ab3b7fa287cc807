"""Writing the token files of one split of a prepared dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jielong.data.shards import SHARD_TOKENS, token_dtype
from jielong.errors import DataError


class ShardWriter:
    """Writes one split: shards, document offsets, and their entries in the manifest."""

    def __init__(
        self, folder: Path, split: str, vocab_size: int, shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self.tokens = self.documents = self.text_bytes = 0
        self._folder, self._split = folder, split
        self._vocab_size, self._dtype = vocab_size, token_dtype(vocab_size)
        self._shard_tokens = shard_tokens
        self._offsets: HashedFile | None = None
        self._shards: list[HashedFile] = []

    def write(
        self, tokens: np.ndarray, lengths: Sequence[int] | np.ndarray, text_bytes: int
    ) -> None:
        """Append documents.

        Args:
            tokens: the tokens of all documents, concatenated.
            lengths: tokens of each document, at least 1.
            text_bytes: UTF-8 bytes of their texts.

        Raises:
            DataError: a token id is outside the vocabulary.
        """
        if not len(lengths):
            return
        largest = int(tokens.max())
        if largest >= self._vocab_size:
            raise DataError(
                f"token {largest} is outside the vocabulary of {self._vocab_size}: "
                "the tokenizer is inconsistent; download or train it again"
            )
        if self._offsets is None:
            self._offsets = HashedFile(self._folder / f"{self._split}.documents.bin")
        starts = self.tokens + np.cumsum([0, *lengths[:-1]], dtype="<i8")
        self._offsets.write(starts.tobytes())
        self.documents += len(lengths)
        self.text_bytes += text_bytes
        rest = tokens.astype(self._dtype)
        while len(rest):
            room = self._shard_tokens - self.tokens % self._shard_tokens
            if room == self._shard_tokens:
                if self._shards:
                    self._shards[-1].close()
                name = f"{self._split}-{len(self._shards):05d}.bin"
                self._shards.append(HashedFile(self._folder / name))
            self._shards[-1].write(rest[:room].tobytes())
            self.tokens += len(rest[:room])
            rest = rest[room:]

    def close(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Close the files; return the manifest entries of the split and of its files.

        At least one document must have been written.
        """
        assert self._offsets is not None
        files = [*self._shards, self._offsets]
        for file in files:
            file.close()
        split = {
            "tokens": self.tokens,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "shards": [file.path.name for file in self._shards],
            "shard_tokens": self._shard_tokens,
            "documents_file": self._offsets.path.name,
        }
        return split, {file.path.name: file.entry for file in files}


class HashedFile:
    """A file whose SHA-256 is computed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    def close(self) -> None:
        self._file.close()

    @property
    def entry(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}
