"""Suite `cloze`: the true continuation of a held-out passage against continuations from elsewhere.

In the manner of HellaSwag (Zellers et al. 2019), but over the run's own held-out text, so that a
small model is asked about the only language it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jielong.errors import DataError
from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.scoring import Row
from jielong.evaluation.suites.subject import Document, Options, Subject, documents

ERROR_OVER = "documents: passages of one document count together"
CONTEXT_TOKENS = 64
CONTINUATION_TOKENS = 16  # at most half a document of median length
CHOICES = 4
MOST_PASSAGES = 10_000  # that the other continuations come from: bounds memory and time


@dataclass(frozen=True)
class Passage:
    """Where a document is cut in two."""

    document: Document
    cut: int

    def beginning(self, bos: list[int], context: int) -> np.ndarray:
        """Return the tokens before the cut, (n,); bos only where they are a document's first."""
        start = max(0, self.cut - context)
        return np.array([*(bos if not start else []), *self.document.ids[start : self.cut]])


def measure(subject: Subject, options: Options) -> tuple[list[Ratio], list[str]]:
    """Return the accuracy of choosing the true continuation, and of its tokens one by one.

    Raises:
        DataError: there is too little held-out text.
    """
    every, length = _passages(subject)
    asked = options.spread(len(every))
    bos = [] if subject.tokenizer.bos_id is None else [subject.tokenizer.bos_id]
    context = max(1, min(CONTEXT_TOKENS, subject.context - length))
    texts = [p.document.ids[p.cut : p.cut + length] for p in every]
    rows = []
    for i in asked:
        beginning = every[i].beginning(bos, context)
        for j in (i, *_others(int(i), every, texts, options.seed)):
            rows.append(Row(np.concatenate([beginning, texts[j]]), len(beginning)))
    chosen, right = {}, {}
    for name, scorer in subject.scorers.items():
        scored = scorer.score(rows)
        nats = np.array([s.nats.sum() for s in scored]).reshape(-1, CHOICES)
        likeliest = np.isclose(nats, nats.min(1, keepdims=True), rtol=1e-9, atol=0)
        chosen[name] = likeliest[:, 0] / likeliest.sum(1)
        right[name] = np.array([s.right.sum() for s in scored[::CHOICES]], dtype=float)
    clusters = np.array([every[i].document.number for i in asked])
    ones, tokens = np.ones(len(clusters)), np.full(len(clusters), float(length))
    return [
        Ratio("continuation", "accuracy", chosen, ones, clusters, fixed={"chance": 1 / CHOICES}),
        Ratio("next token", "accuracy", right, tokens, clusters),
    ], [
        f"continuation: of {length} tokens after at most {context}, one true and {CHOICES - 1} "
        "from elsewhere in the held-out text; next token: how often the likeliest is the true one"
    ]


def _passages(subject: Subject) -> tuple[list[Passage], int]:
    """Return where documents are cut, without overlap, and the length of the continuations."""
    found = documents(subject.need_held_out("cloze"), subject.tokenizer, least=2)
    sizes = [len(document.ids) for document in found]
    length = max(1, min(CONTINUATION_TOKENS, int(np.median(sizes)) // 2)) if sizes else 1
    every = [
        Passage(document, cut)
        for document in found
        for cut in range(length, len(document.ids) - length + 1, length)
    ]
    if len(every) < 2 * CHOICES:
        raise DataError(
            f"cloze needs more held-out text: {len(every)} passages of {2 * length} tokens are not "
            f"{2 * CHOICES}; hold out more with --validation-fraction"
        )
    return [every[i] for i in Options(MOST_PASSAGES).spread(len(every))], length


def _others(i: int, every: list[Passage], texts: list[np.ndarray], seed: int) -> list[int]:
    """Return CHOICES − 1 passages besides i, of other documents if there are enough."""
    numbers = np.array([p.document.number for p in every])
    elsewhere = np.flatnonzero(numbers != numbers[i])
    if len(elsewhere) < CHOICES:
        elsewhere = np.flatnonzero(np.arange(len(every)) != i)
    found: list[int] = []
    for j in np.random.default_rng([seed, i]).permutation(elsewhere).tolist():
        if not any(np.array_equal(texts[j], texts[other]) for other in (i, *found)):
            found.append(j)
        if len(found) == CHOICES - 1:
            return found
    raise DataError("cloze needs held-out text that does not repeat itself")
