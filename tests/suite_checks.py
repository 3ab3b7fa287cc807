"""What tests of several suites do with a result."""

from __future__ import annotations

import numpy as np

from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.scoring import Row
from jielong.evaluation.suites.subject import Subject


def by_name(found: list[Ratio]) -> dict[str, Ratio]:
    assert len({ratio.name for ratio in found}) == len(found)
    return {ratio.name: ratio for ratio in found}


def nats(subject: Subject, ids: np.ndarray, first: int = 1) -> float:
    return float(subject.scorer.score([Row(ids, first)])[0].nats.sum())
