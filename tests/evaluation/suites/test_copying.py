"""Who copies is told from who does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jielong.evaluation.suites import copying
from jielong.evaluation.suites.scoring import Row, Scored
from jielong.evaluation.suites.subject import Options, Subject
from suite_checks import by_name


class Copier:
    """Predicts that the next token is the one that followed the same token before, if it did."""

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        found = []
        for row in rows:
            nats, right = [], []
            for i in range(row.first, len(row.ids)):
                earlier = np.flatnonzero(row.ids[: i - 1] == row.ids[i - 1])
                copies = len(earlier) > 0 and row.ids[earlier[-1] + 1] == row.ids[i]
                nats.append(0.1 if copies else 8.0)
                right.append(copies)
            found.append(Scored(np.array(nats), np.array(right)))
        return found


def test_one_that_copies_is_told_from_one_that_does_not(subject: Subject) -> None:
    learnt = by_name(copying.measure(subject, Options(limit=16))[0])
    assert next(iter(learnt)) == "16 tokens back" and "32 tokens back" in learnt
    assert "64 tokens back" not in learnt  # the context is 64 tokens long
    assert learnt["16 tokens back"].measure().value < 0.2
    subject.__dict__["scorer"] = Copier()
    found = by_name(copying.measure(subject, Options(limit=16))[0])
    for distance in (16, 32):
        measure = found[f"{distance} tokens back"].measure()
        assert measure.value > 0.8 and measure.beside["not repeated"] < 0.2
        assert found[f"{distance} tokens back, gained"].measure().value > 6
