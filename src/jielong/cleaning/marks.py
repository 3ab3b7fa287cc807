"""What texts are compared by: a hash of each, and the keys of the bands of its signature.

Near duplicates are found by MinHash (Broder 1997) with locality-sensitive hashing: texts of which a
band of the signature is the same are candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jielong.cleaning.columns import column
from jielong.cleaning.shingles import PIECE_CHARS, shingles, shingles_of_all
from jielong.cleaning.staging import Texts
from jielong.data.prepare.split import text_hash
from jielong.data.shuffle import mix_bits
from jielong.errors import ConfigError

SIGNATURE = 128  # hashes in a signature
SEED = 1
RECALL = 0.99  # of pairs that are just similar enough
LONGEST_CHARS = 2**24  # of texts that are compared nearly; longer ones only exactly
BATCH_CHARS = 2**16  # of texts that are signed together: what is made of them fits a cache
COMPARED, NO_WORDS, TOO_LONG = range(3)  # whether a text is compared nearly


class Bands:
    """Signatures of texts, cut into bands so that similar texts very likely share one.

    Args:
        similarity: of pairs that are to be found, nearly all of them (RECALL).

    Raises:
        ConfigError: the library for signatures is not installed.
    """

    def __init__(self, similarity: float) -> None:
        try:
            from rensa import RMinHash
        except ImportError:
            raise ConfigError(
                "near duplicates are found by rensa, which is not installed: "
                "pip install 'jielong[clean]', or go on without them: --without near"
            ) from None
        self._sign = RMinHash.digest_matrix_from_flat_token_hashes
        self.rows = rows_of_bands(similarity)
        self.count = SIGNATURE // self.rows

    def keys(self, shingles: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the keys of the bands of texts, (bands, texts) uint64.

        Args:
            shingles: of the texts one after another, in any order within a text.
            counts: how many each text has, at least one, (texts,).
        """
        ends = np.append(0, np.cumsum(counts)).astype(np.uint64)
        signed = self._sign(shingles, ends, SIGNATURE, SEED).to_rows()
        signatures = np.array(signed, np.uint64)[:, : self.count * self.rows]
        parts = signatures.reshape(len(counts), self.count, self.rows)
        keys = np.broadcast_to(np.arange(self.count, dtype=np.uint64), parts.shape[:2])
        for place in range(self.rows):
            keys = mix_bits(keys + parts[:, :, place])
        return keys.T


def rows_of_bands(similarity: float) -> int:
    """Return the most rows of a band with which a pair that similar shares one with RECALL."""
    for rows in range(16, 1, -1):
        if 1 - (1 - similarity**rows) ** (SIGNATURE // rows) >= RECALL:
            return rows
    return 1


@dataclass(frozen=True)
class Marks:
    """What some texts are compared by.

    Attributes:
        exact: a hash of each without the space around it, (texts,) uint64; None: not asked for.
        bands: the keys of the bands, (bands, texts) uint64; zeros of texts that are not compared.
        states: COMPARED, NO_WORDS or TOO_LONG, (texts,) uint8.
    """

    exact: np.ndarray | None
    bands: np.ndarray | None
    states: np.ndarray | None


@dataclass(frozen=True)
class Marker:
    """Makes marks.

    Attributes:
        exact: hashes are wanted.
        similarity: of near duplicates; None: they are not looked for.
    """

    exact: bool
    similarity: float | None

    def marks(self, texts: Texts) -> Marks:
        """Return what the texts are compared by."""
        exact = None
        if self.exact:
            hashes = (text_hash(text.strip().encode()) for text in texts)
            exact = np.fromiter(hashes, np.uint64, len(texts))
        if self.similarity is None:
            return Marks(exact, None, None)
        bands = Bands(self.similarity)
        keys = np.zeros((bands.count, len(texts)), np.uint64)
        states = np.full(len(texts), NO_WORDS, np.uint8)
        for begin, some in _together(texts):
            end = begin + len(some)
            if len(some[0]) > LONGEST_CHARS:  # it is alone
                states[begin] = TOO_LONG
                continue
            if len(some[0]) > PIECE_CHARS:
                found = shingles(some[0])
                counts = np.array([len(found)])
            else:
                found, counts = shingles_of_all(some)
            rows = np.flatnonzero(counts)
            if len(rows):
                keys[:, begin + rows] = bands.keys(found, counts[rows])
                states[begin:end][rows] = COMPARED
        return Marks(exact, keys, states)


def _together(texts: Texts) -> Iterator[tuple[int, list[str]]]:
    """Yield texts several at a time, long ones alone, and the number of the first of them."""
    most = min(BATCH_CHARS, LONGEST_CHARS)
    begin = chars = 0
    some: list[str] = []
    for number, text in enumerate(texts):
        if some and chars + len(text) > most:
            yield begin, some
            begin, chars, some = number, 0, []
        some.append(text)
        chars += len(text)
    if some:
        yield begin, some


class MarkFiles:
    """The marks of all texts, in files: of each 8 bytes for the hash and for each band, and 1.

    Args:
        folder: a new one for them.
    """

    def __init__(self, folder: Path, marker: Marker) -> None:
        folder.mkdir()
        self._folder = folder
        self.bands = 0 if marker.similarity is None else Bands(marker.similarity).count
        names = [*(["exact"] if marker.exact else []), *(["states"] if self.bands else [])]
        names += map(_band, range(self.bands))
        self._files = {name: (folder / name).open("wb") for name in names}

    def add(self, marks: Marks) -> None:
        """Append the marks of the next texts."""
        if marks.exact is not None:
            self._files["exact"].write(marks.exact.tobytes())
        if marks.bands is not None and marks.states is not None:
            self._files["states"].write(marks.states.tobytes())
            for number, keys in enumerate(marks.bands):
                self._files[_band(number)].write(keys.tobytes())

    def finish(self) -> None:
        """End adding."""
        for file in self._files.values():
            file.close()

    def exact(self) -> np.ndarray:
        """Return the hashes, (texts,)."""
        return column(self._folder / "exact", np.uint64)

    def states(self) -> np.ndarray:
        """Return whether each text is compared nearly, (texts,)."""
        return column(self._folder / "states", np.uint8)

    def take_band(self, number: int) -> np.ndarray:
        """Return the keys of a band, (texts,); their file goes once they are not used any more."""
        path = self._folder / _band(number)
        keys = column(path, np.uint64)
        path.unlink()
        return keys


def _band(number: int) -> str:
    return f"band-{number:02d}"
