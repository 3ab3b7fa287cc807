"""Suite `copying`: does the model go on with random tokens that it has read before?

Random tokens, more random tokens, then the first ones again. Nothing but the repeat tells what
comes next, so this measures copying from the context (induction, Olsson et al. 2022), and how far
back it reaches. Models of some million parameters learn it late, if at all; the bits gained show it
before the accuracy does.
"""

from __future__ import annotations

import math

import numpy as np

from jielong.errors import DataError
from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.scoring import Row
from jielong.evaluation.suites.subject import Options, Subject

ERROR_OVER = "sequences"
REPEATED_TOKENS = 16
SEQUENCES = 64  # of each distance


def measure(subject: Subject, options: Options) -> tuple[list[Ratio], list[str]]:
    """Return accuracy and bits gained by the first reading, for each distance in tokens.

    Raises:
        DataError: the context is too short to repeat anything.
    """
    found = []
    pool, bos = subject.text_tokens, subject.tokenizer.bos_id
    for distance in _distances(subject):
        rng = np.random.default_rng([options.seed, distance])
        count = min(SEQUENCES, options.limit or SEQUENCES)
        repeated, other = rng.choice(pool, (2, count, REPEATED_TOKENS))
        begin = np.full((count, 0 if bos is None else 1), bos or 0)
        between = rng.choice(pool, (count, distance - REPEATED_TOKENS))
        right, nats = {}, {}
        for who, first in (("model", repeated), ("not repeated", other)):
            rows = np.concatenate([begin, first, between, repeated], axis=1).astype(np.int64)
            # the first token of a repeat cannot be foreseen
            start = rows.shape[1] - REPEATED_TOKENS + 1
            scored = subject.scorer.score([Row(ids, start) for ids in rows])
            right[who] = np.array([s.right.sum() for s in scored], dtype=float)
            nats[who] = np.array([s.nats.sum() for s in scored])
        gained = (nats["not repeated"] - nats["model"]) / math.log(2)
        tokens = np.full(count, REPEATED_TOKENS - 1.0)
        chance = {"chance": 1 / len(pool)}
        found += [
            Ratio(f"{distance} tokens back", "accuracy", right, tokens, fixed=chance),
            Ratio(f"{distance} tokens back, gained", "bits", {"model": gained}, tokens),
        ]
    return found, [
        f"not repeated: the same tokens, but {REPEATED_TOKENS} others where they stood first; "
        "gained: bits per token that the first reading saves, 0 for a model that does not copy, "
        f"about {math.log2(len(pool)):.0f} for one that does"
    ]


def _distances(subject: Subject) -> list[int]:
    longest = subject.context - REPEATED_TOKENS
    found = [d for d in (16, 32, 64, 128, 256, 512, 1024) if d <= longest]
    if not found:
        raise DataError(
            f"copying needs a context of {2 * REPEATED_TOKENS} tokens; {subject.name} has "
            f"{subject.context}"
        )
    return found
