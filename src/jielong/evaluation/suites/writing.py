"""Suite `writing`: repetition and diversity of what the model writes, beside real text.

distinct-n is the share of different n-grams among those of a text (Li et al. 2016), and repetition
the share of 4-grams that stood in the same text before (seq-rep-4, Welleck et al. 2020). Good
writing has the numbers of real text, not the highest ones.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.subject import Options, Subject
from jielong.evaluation.suites.written import written

ERROR_OVER = "texts"
DISTINCT = (1, 2, 3)
REPEATED = 4


def measure(subject: Subject, options: Options) -> tuple[list[Ratio], list[str]]:
    """Return distinct-n, the share of repeated 4-grams, and that of 4-grams of other texts.

    Raises:
        DataError: there is too little held-out text.
    """
    texts = written(subject, options, "writing")
    both = {"model": texts.by_model, "real text": texts.real}
    found = []
    for n in DISTINCT:
        tops = {who: np.array([_different(ids, n) for ids in t]) for who, t in both.items()}
        found.append(Ratio(f"distinct-{n}", "share", tops, _counts(texts.real, n)))
    total = _counts(texts.real, REPEATED)
    repeated = {
        who: total - np.array([_different(ids, REPEATED) for ids in t]) for who, t in both.items()
    }
    elsewhere = {who: _in_other_texts(t, REPEATED) for who, t in both.items()}
    found += [
        Ratio(f"{REPEATED}-grams repeated", "share", repeated, total),
        Ratio(f"{REPEATED}-grams of other texts", "share", elsewhere, total),
    ]
    return found, [texts.note]


def ngrams(ids: np.ndarray, n: int) -> list[tuple[int, ...]]:
    """Return the n-grams of ids (N,), in order."""
    values = ids.tolist()
    return [tuple(values[i : i + n]) for i in range(len(values) - n + 1)]


def _counts(texts: list[np.ndarray], n: int) -> np.ndarray:
    return np.array([max(0.0, len(ids) - n + 1) for ids in texts])


def _different(ids: np.ndarray, n: int) -> int:
    return len(set(ngrams(ids, n)))


def _in_other_texts(texts: list[np.ndarray], n: int) -> np.ndarray:
    """Return how many n-grams of each text stand in another one too."""
    grams = [ngrams(ids, n) for ids in texts]
    texts_with = Counter(gram for of_text in grams for gram in set(of_text))
    return np.array([sum(texts_with[gram] > 1 for gram in of_text) for of_text in grams], float)
