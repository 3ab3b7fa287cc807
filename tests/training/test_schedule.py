"""Learning rates at steps worked out by hand."""

from __future__ import annotations

import math

import pytest

from jielong.config.settings import TrainingConfig
from jielong.training.schedule import Schedule


def factors(total: int, **values: object) -> list[float]:
    schedule = Schedule.of(TrainingConfig(**values), total)  # type: ignore[arg-type]
    return [schedule.lr_scale(step) for step in range(total)]


def test_wsd_warms_up_stays_and_falls_in_a_line() -> None:
    got = factors(10, schedule="wsd", warmup_steps=2, decay_ratio=0.4)
    # 4 steps of decay: the first of them still takes the full rate
    assert got == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_wsd_falls_to_its_floor() -> None:
    got = factors(10, schedule="wsd", warmup_steps=0, decay_ratio=0.5, min_lr_ratio=0.2)
    assert got == pytest.approx([1, 1, 1, 1, 1, 1, 0.84, 0.68, 0.52, 0.36])


def test_cosine_is_half_a_wave() -> None:
    got = factors(10, schedule="cosine", warmup_steps=2, min_lr_ratio=0.1)
    waves = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert got == pytest.approx([0.5, 1.0, *waves])
    assert got[6] == pytest.approx(0.55)  # half-way


def test_linear_falls_in_a_line() -> None:
    got = factors(6, schedule="linear", warmup_steps=1)
    assert got == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])


def test_constant_stays_after_its_warm_up() -> None:
    assert factors(5, schedule="constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 0), (0.02, 2), (0.5, 50), (1.0, 100)])
def test_warm_up_as_a_share_of_the_run(ratio: float, steps: int) -> None:
    assert Schedule.of(TrainingConfig(warmup_ratio=ratio), 100).warmup_steps == steps


@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3, 50])
@pytest.mark.parametrize("warmup", [0, 1, 1000])
def test_every_step_of_any_run_has_a_rate_above_zero_and_not_above_the_peak(
    kind: str, total: int, warmup: int
) -> None:
    got = factors(total, schedule=kind, warmup_steps=warmup, decay_ratio=1.0)
    assert all(0 < factor <= 1 for factor in got)
