"""Texts that are there already, exactly or nearly: of each, the first one stays.

Near duplicates are found by MinHash (Broder 1997) with locality-sensitive hashing: texts of which a
band of the signature is the same are candidates. Whether one is dropped is then decided by the
texts themselves: by the share of their shingles that they have in common (Jaccard). So none is
dropped by chance, and each that is dropped is that similar to one that stays, which is named.
"""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jielong.cleaning.shingles import jaccard, shingles
from jielong.cleaning.staging import Stage
from jielong.data.shuffle import mix_bits
from jielong.errors import ConfigError

SIGNATURE = 128  # hashes in a signature
SEED = 1
RECALL = 0.99  # of pairs that are just similar enough
LONGEST_CHARS = 2**24  # of texts that are compared nearly; longer ones only exactly
BATCH_SHINGLES, BATCH_TEXTS = 2**20, 2**12  # signed together
COMPARED = 32  # most texts that one is compared with
HOPS = 4  # in a band: the one before it, the one before that, …
CACHED = 64  # texts whose shingles are kept, with at most CACHED_SHINGLES
CACHED_SHINGLES = 2**20
_HALF, _LOWER = np.uint64(32), np.uint64(2**32 - 1)

Found = Callable[[int, int, float], None]  # (number, of the one that stays, similarity)


def drop_exact(stage: Stage, found: Found, progress: Callable[[int], None]) -> None:
    """Drop the texts that are the same as an earlier one, but for white space around them."""
    numbers = np.flatnonzero(stage.kept)
    hashes = np.empty(len(numbers), np.uint64)
    for row, (number, text) in enumerate(stage.texts()):
        digest = hashlib.blake2b(text.strip().encode(), digest_size=8).digest()
        hashes[row] = int.from_bytes(digest, "little")
        progress(number)
    for group in _groups(hashes):
        first = int(numbers[group[0]])
        same = stage.text(first).strip()
        for row in group[1:]:
            number = int(numbers[row])
            if stage.text(number).strip() == same:  # else two texts have one hash
                stage.drop(number)
                found(number, first, 1.0)


def drop_near(
    stage: Stage, similarity: float, folder: Path, found: Found, progress: Callable[[int], None]
) -> int:
    """Drop the texts of which an earlier one that stays has a large share of the shingles.

    Args:
        similarity: least share that two have in common.
        folder: for files while it works: 8 bytes for each text and band.

    Returns:
        How many texts were too long to be compared, and stay.

    Raises:
        ConfigError: the library for it is not installed.
    """
    bands = Bands(similarity)
    signed, too_long = _sign_all(stage, bands, folder, progress)
    links = np.empty(0, np.uint64)
    for file in bands.files(folder):
        pairs = [links]
        for group in _groups(np.fromfile(file, np.uint64)):
            of_band = signed[group].astype(np.uint64)
            pairs.append(of_band[1:] << _HALF | of_band[:-1])
        links = np.unique(np.concatenate(pairs))
        file.unlink()
    _drop_similar(stage, _Links(links), similarity, found)
    return too_long


def _sign_all(
    stage: Stage, bands: Bands, folder: Path, progress: Callable[[int], None]
) -> tuple[np.ndarray, int]:
    """Write the keys of all texts, band by band.

    Returns:
        The numbers of the texts in their order, and how many were too long.
    """
    signed, too_long = array("q"), 0
    batch: list[np.ndarray] = []
    count = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in bands.files(folder)]

        def write() -> None:
            if batch:
                for file, keys in zip(files, bands.keys(batch), strict=True):
                    file.write(keys.tobytes())
                batch.clear()

        for number, text in stage.texts():
            progress(number)
            if len(text) > LONGEST_CHARS:
                too_long += 1
                continue
            of_text = shingles(text)
            if not len(of_text):  # no word in it
                continue
            batch.append(of_text)
            signed.append(number)
            count += len(of_text)
            if count >= BATCH_SHINGLES or len(batch) == BATCH_TEXTS:
                write()
                count = 0
        write()
    return np.array(signed, np.int64), too_long


def _drop_similar(stage: Stage, links: _Links, similarity: float, found: Found) -> None:
    """Compare each text with those before it in its bands, or with what those were dropped for."""
    stays: dict[int, int] = {}  # for which text another was dropped
    cached = _Shingles(stage)
    for number in links.numbers():
        own = cached.of(number)
        for other in links.candidates(number, stays):
            theirs = cached.of(other)
            if min(len(own), len(theirs)) < similarity * max(len(own), len(theirs)):
                continue
            shared = jaccard(own, theirs)
            if shared >= similarity:
                stage.drop(number)
                stays[number] = other
                found(number, other, shared)
                break


class _Links:
    """For each text, the ones right before it in the bands that it shares with others.

    Args:
        pairs: sorted, each the number of a text in its upper half, and of one before it in the
            lower.
    """

    def __init__(self, pairs: np.ndarray) -> None:
        self._later = pairs >> _HALF
        self._before = (pairs & _LOWER).astype(np.int64)

    def numbers(self) -> list[int]:
        """Return the texts that have any before them, in order."""
        return np.unique(self._later).tolist()

    def candidates(self, number: int, stays: dict[int, int]) -> Iterator[int]:
        """Yield texts that stay and may be like a text, each once; the nearest first."""
        seen = {number}
        row = [number]
        for _ in range(HOPS):
            row = [other for later in row for other in self._of(later)][:COMPARED]
            for other in dict.fromkeys(row):
                kept = stays.get(other, other)
                if kept not in seen and len(seen) <= COMPARED:
                    seen.add(kept)
                    yield kept

    def _of(self, number: int) -> list[int]:
        begin, end = np.searchsorted(self._later, [number, number + 1])
        return self._before[begin:end].tolist()


def _groups(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places of equal keys, where there are two or more, in ascending order."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    ends = np.append(starts[1:], len(ordered))
    several = ends - starts > 1
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        yield order[start:end]


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

    def files(self, folder: Path) -> list[Path]:
        """Return a file for each band."""
        return [folder / f"band-{number:02d}" for number in range(self.count)]

    def keys(self, texts: list[np.ndarray]) -> np.ndarray:
        """Return the keys of the bands of texts, (bands, texts) uint64.

        Args:
            texts: the shingles of each, at least one.
        """
        ends = np.cumsum([0, *map(len, texts)], dtype=np.uint64)
        signed = self._sign(np.concatenate(texts), ends, SIGNATURE, SEED).to_rows()
        signatures = np.array(signed, np.uint64)[:, : self.count * self.rows]
        parts = signatures.reshape(len(texts), self.count, self.rows)
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


class _Shingles:
    """The shingles of the texts that were compared with last."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()

    def of(self, number: int) -> np.ndarray:
        """Return those of a text."""
        if number not in self._held:
            self.put(number, shingles(self._stage.text(number)))
        self._held.move_to_end(number)
        return self._held[number]

    def put(self, number: int, values: np.ndarray) -> None:
        """Keep those of a text."""
        self._held[number] = values
        while len(self._held) > CACHED or sum(map(len, self._held.values())) > CACHED_SHINGLES:
            if len(self._held) == 1:
                break
            self._held.popitem(last=False)
