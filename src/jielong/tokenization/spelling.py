"""What tokens' spellings have in common: ` The`, `the` and `THE` are one word, `-ing` an ending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST = 3  # characters of a run of them
COMMON = 0.9  # share of the tokens from which on a feature tells nothing


@dataclass(frozen=True)
class Spelling:
    """The features that tokens share, as a sparse matrix (tokens, features) of F columns.

    Attributes:
        tokens: (E,) int64, the rows of its entries, ascending.
        features: (E,) int64, their columns.
        values: (E,) float32. The squares of a row sum to 1, or to 0 where nothing is shared.
        feature_count: F.
    """

    tokens: np.ndarray
    features: np.ndarray
    values: np.ndarray
    feature_count: int


def spelling_of(pieces: Sequence[bytes]) -> Spelling:
    """Find what the tokens' texts share, as fastText describes words (Bojanowski et al. 2017).

    A token has its word without capitals and the space before it, whether that space is there, how
    it is capitalised, and each run of up to 3 characters. What one token alone has, or nearly all
    have, is left out.

    Args:
        pieces: each token's text as bytes; empty where it has none, as special tokens.
    """
    found = [_features(piece.decode(errors="replace")) if piece else [] for piece in pieces]
    counts = Counter(feature for features in found for feature in features)
    most = COMMON * sum(map(bool, pieces))
    columns: dict[str, int] = {}
    rows: list[int] = []
    entries: list[int] = []
    values: list[float] = []
    for token, features in enumerate(found):
        shared = [feature for feature in features if 1 < counts[feature] < most]
        rows += [token] * len(shared)
        entries += [columns.setdefault(feature, len(columns)) for feature in shared]
        values += [len(shared) ** -0.5 for _ in shared]
    matrix = np.array(rows, np.int64), np.array(entries, np.int64), np.array(values, np.float32)
    return Spelling(*matrix, len(columns))


def _features(text: str) -> list[str]:
    """Return them by name, each once, in the same order in each process."""
    word = text.strip()
    lower = word.lower()
    found = [f"word {lower}", f"space {text[:1].isspace()}", f"capitals {_capitals(word)}"]
    bounded = f"^{lower}$"
    for length in range(1, LONGEST + 1):
        found += [bounded[i : i + length] for i in range(len(bounded) - length + 1)]
    return list(dict.fromkeys(found))


def _capitals(word: str) -> str:
    if len(word) > 1 and word.isupper():
        return "all"
    return "first" if word[:1].isupper() else "none"
