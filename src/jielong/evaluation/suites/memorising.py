"""Suite `memorising`: how much of what the model writes stands verbatim in its training text.

The share of n-grams of 8, 16 and 32 tokens that are in the training text, and the longest match,
beside the same of real held-out text: some phrases recur in any text. (After Lee et al. 2022 and
McCoy et al. 2023, who count n-grams that are not in the training text.)

The training tokens are read once, in pieces. The 8-grams of all texts are looked for by a hash; a
longer match is a run of matching 8-grams, so what surrounds no match is never kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from jielong.data.shuffle import mix_bits
from jielong.data.windows import Stream
from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.subject import Options, Subject
from jielong.evaluation.suites.written import written

ERROR_OVER = "texts"
LENGTHS = (8, 16, 32)
SHORTEST = LENGTHS[0]
PIECE_TOKENS = 2**21
KEPT_TOKENS = 2**22  # most tokens of matches that are kept: bounds memory
QUOTED_CHARS = 160
BASE = np.uint64(0x9E3779B97F4A7C15)


def measure(subject: Subject, options: Options) -> tuple[list[Ratio], list[str]]:
    """Return the shares of n-grams, and the mean of each text's longest match.

    Raises:
        DataError: there is no training text, or too little held-out text.
    """
    train = subject.need_train("memorising")
    texts = written(subject, options, "memorising")
    both = {"model": texts.by_model, "held-out": texts.real}
    stretches = subject.searched or [(0, len(train))]
    matches = Matches(train, [*texts.by_model, *texts.real], stretches)
    found = []
    for n in LENGTHS:
        total = np.array([max(0.0, len(ids) - n + 1) for ids in texts.real])
        if (total > 0).sum() < 2:
            continue
        tops = {
            who: np.array([places.sum() for places in matches.found(t, n)], dtype=float)
            for who, t in both.items()
        }
        found.append(Ratio(f"{n}-grams in the training text", "share", tops, total))
    longest = {who: matches.longest(t) for who, t in both.items()}
    lengths = {who: np.array([float(n) for n, _ in each]) for who, each in longest.items()}
    found.append(Ratio("longest match", "tokens", lengths, np.ones(len(texts.real))))
    notes = [texts.note, f"a match has {SHORTEST} tokens or more; a text without one counts 0"]
    best = int(lengths["model"].argmax())
    length, start = longest["model"][best]
    if length:
        quoted = subject.tokenizer.decode(texts.by_model[best][start : start + length].tolist())
        notes.append(f"the longest match of all, {length} tokens: {_short(quoted)!r}")
    if (searched := sum(stop - start for start, stop in stretches)) < len(train):
        notes.append(f"looked for in {searched:,} of the {len(train):,} tokens of training text")
    if not matches.complete:
        notes.append("more was found than is kept: the numbers are too low")
    return found, notes


class Matches:
    """The parts of a training text that some texts share with it.

    Args:
        train: the training text, of any length.
        texts: ids (n,) of each text.
        stretches: where in the training text is looked, from token to token; default: in all of it.

    Attributes:
        runs: ids (n,) of each part, one for each that is different.
        complete: whether all of them could be kept.
    """

    def __init__(
        self,
        train: Stream,
        texts: list[np.ndarray],
        stretches: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        wanted = np.unique(np.concatenate([ngram_hashes(ids, SHORTEST) for ids in texts]))
        kept: dict[bytes, np.ndarray] = {}
        tokens, self.complete = 0, True
        every = [(0, len(train))] if stretches is None else stretches
        for run in itertools.chain(*(_matching_runs(train, span, wanted) for span in every)):
            if run.tobytes() in kept:
                continue
            if tokens + len(run) > KEPT_TOKENS:
                self.complete = False
                break
            kept[run.tobytes()] = run
            tokens += len(run)
        self.runs = list(kept.values())

    def found(self, texts: list[np.ndarray], n: int) -> list[np.ndarray]:
        """Return of each text (N,) which n-grams are in the training text: (N − n + 1,) bool."""
        each = [ngram_hashes(run, n) for run in self.runs if len(run) >= n]
        there = np.unique(np.concatenate([np.empty(0, np.uint64), *each]))
        return [_is_in(ngram_hashes(ids, n), there) for ids in texts]

    def longest(self, texts: list[np.ndarray]) -> list[tuple[int, int]]:
        """Return length and start of each text's longest part that is in the training text.

        The length is 0 where no `SHORTEST` tokens are.
        """
        best = [(0, 0)] * len(texts)
        left, n = list(range(len(texts))), SHORTEST
        while left:  # a longer match has shorter ones in it
            found = self.found([texts[i] for i in left], n)
            left = [i for i, places in zip(left, found, strict=True) if places.any()]
            for i, places in zip(left, filter(np.any, found), strict=True):
                best[i] = n, int(places.argmax())
            n += 1
        return best


def ngram_hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """Return a hash of each n-gram of ids (N,): (N − n + 1,) uint64, none if there is none.

    Two different n-grams have the same hash with a probability of about n / 2^64.
    """
    count = len(ids) - n + 1
    if count < 1:
        return np.empty(0, np.uint64)
    # the hash of a + b tokens is that of the first a, times BASE^b, plus that of the next b
    whole, size = np.zeros(len(ids) + 1, np.uint64), 0
    span = mix_bits(ids.astype(np.uint64) + BASE)
    block, power = 1, np.full(1, BASE)  # power: BASE^block
    while size < n:
        if n & block:
            whole = whole[: len(span) - size] * power + span[size:]
            size += block
        span = span[:-block] * power + span[block:]
        block, power = 2 * block, power * power
    return whole


def _matching_runs(
    train: Stream, span: tuple[int, int], wanted: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield the tokens of each longest run of 8-grams of which each has a wanted hash."""
    open_start, end = -1, -1  # positions of the first 8-gram of a run, and after its last
    for start in range(*span, PIECE_TOKENS):
        piece = train.read(start, min(start + PIECE_TOKENS + SHORTEST - 1, span[1]))
        hits = start + np.flatnonzero(_is_in(ngram_hashes(piece, SHORTEST), wanted))
        for first, last in _runs(hits):
            if first == end:
                end = last
                continue
            if open_start >= 0:
                yield train.read(open_start, end + SHORTEST - 1)
            open_start, end = first, last
    if open_start >= 0:
        yield train.read(open_start, end + SHORTEST - 1)


def _runs(places: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the start and the end, exclusive, of each run of consecutive numbers."""
    if len(places):
        breaks = np.flatnonzero(np.diff(places) > 1)
        firsts = places[np.append(0, breaks + 1)]
        lasts = places[np.append(breaks, len(places) - 1)]
        yield from zip(firsts.tolist(), (lasts + 1).tolist(), strict=True)


def _is_in(hashes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """As np.isin for an ascending `wanted`, without sorting the hashes."""
    if not len(wanted):
        return np.zeros(len(hashes), bool)
    place = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
    return wanted[place] == hashes


def _short(text: str) -> str:
    return text if len(text) <= QUOTED_CHARS else text[:QUOTED_CHARS] + "…"
