"""The schedule view against the rates that a run recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jielong.insight.schedule import inspect_schedule
from jielong.present.words import sayer
from tiny import TINY_RUN


def test_the_rates_are_those_of_the_run(trained_run: Path) -> None:
    view = inspect_schedule(trained_run)
    lines = (trained_run / "metrics.jsonl").read_text().splitlines()
    recorded = {
        r["step"]: r["learning_rate"] for r in map(json.loads, lines) if "learning_rate" in r
    }
    assert len(recorded) == view.total_steps == TINY_RUN["steps"] == len(view.points)
    for point in view.points:
        assert point.learning_rate == pytest.approx(recorded[point.step + 1], rel=1e-3)
        assert point.decay == pytest.approx(point.learning_rate * view.weight_decay)
    assert view.points[-1].tokens_before + view.points[-1].batch_tokens == view.tokens


def test_other_settings_show_another_schedule(trained_run: Path) -> None:
    view = inspect_schedule(trained_run, schedule="cosine", warmup_steps=4, learning_rate=1.0)
    rates = [point.learning_rate for point in view.points]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] < 0.05
    assert "decay at the end" not in repr(view.page(sayer("en")))


def test_a_long_run_has_few_points_with_both_ends(trained_run: Path) -> None:
    view = inspect_schedule(trained_run, steps=100_000)
    assert len(view.points) == 400
    assert (view.points[0].step, view.points[-1].step) == (0, 99_999)
