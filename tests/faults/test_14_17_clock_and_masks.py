"""Rows 14, 15 and 17: clocks that jump, state that does not fit, batches without a target."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from jielong.config.settings import IGNORE_INDEX
from jielong.errors import CheckpointError
from jielong.observe.metrics import RunningMetrics
from tiny import new_optimizer, one_step, random_batch, tiny_config, tiny_model


def test_14_speed_stays_positive_though_the_clock_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wall clock may; what measures speed is monotonic. Checkpoints go by step, see
    tests/checkpoint/test_checkpoint.py."""
    means = RunningMetrics()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    means.add(1.0, 100, applied=True)
    assert 0 < means.tokens_per_second < float("inf")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_15_optimizer_state_that_does_not_fit_is_refused(optimizer: str) -> None:
    model = tiny_model()
    ours = new_optimizer(model, tiny_config(optimizer=optimizer))
    one_step(model, ours, [random_batch(2, 16)])
    sound = ours.state_tensors()
    wide = next(name for name, value in sound.items() if value.ndim == 2)
    for changes in (
        {wide: sound[wide][:1]},
        {wide: sound[wide].T.contiguous()[:, :1]},
        {wide: sound[wide].bfloat16()},
        {"model.stranger/exp_avg": torch.zeros(2)},
    ):
        fresh = new_optimizer(tiny_model(), tiny_config(optimizer=optimizer))
        with pytest.raises(CheckpointError, match="optimizer state"):
            fresh.load_state_tensors(sound | changes)


@pytest.mark.parametrize("rows", ["all", "one of two"])
def test_17_targets_that_are_all_ignored_leave_everything_finite(rows: str) -> None:
    model = tiny_model()
    optimizer = new_optimizer(model, tiny_config())
    one, other = random_batch(2, 16), random_batch(2, 16, seed=1)
    empty = dataclasses.replace(one, targets=torch.full_like(one.targets, IGNORE_INDEX))
    result = one_step(model, optimizer, [empty] if rows == "all" else [empty, other])
    assert result.tokens == (0 if rows == "all" else other.target_count)
    assert torch.tensor(result.loss).isfinite() and torch.tensor(result.grad_norm).isfinite()
    assert all(p.isfinite().all() for p in model.parameters())
