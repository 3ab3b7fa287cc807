"""Batch sizes that follow from the model and the budget."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from jielong.config.load import load_config
from jielong.config.settings import Config
from jielong.training.plan import RunPlan, resolve
from jielong.training.scaling import (
    STUDENT_STRENGTH,
    default_micro_batch_size,
    epochs_each,
    teachers_for,
    warmup_batch_sizes,
)
from tiny import ListStream

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def settled(tokens: int, **values: Any) -> tuple[Config, RunPlan]:
    config = load_config(tokens=tokens, max_seq_len=64, hidden_size=128, **values)
    return config, resolve(config, ListStream([[1, 2]]), CPU)


def test_batches_grow_from_a_small_one_to_the_full_one_and_a_sixth_of_a_long_run_is_over() -> None:
    config, plan = settled(10_000_000)
    sizes = warmup_batch_sizes(config, plan.global_batch_size)
    assert plan.batch_warmup and sizes[0] == 4 * 128 // 64
    assert all(a <= b for a, b in itertools.pairwise(sizes))
    assert sizes[-1] < plan.global_batch_size
    assert sum(sizes) * 64 / 10_000_000 == pytest.approx((2 / 5) ** 2, abs=0.02)


def test_a_batch_size_that_is_given_is_that_of_all_steps() -> None:
    assert not settled(10_000_000, global_batch_size=9)[1].batch_warmup
    assert not settled(10_000_000, batch_warmup=False)[1].batch_warmup
    config, plan = settled(10_000_000, global_batch_size=90, batch_warmup=True)
    grown = warmup_batch_sizes(config, plan.global_batch_size)
    assert plan.batch_warmup and grown[0] == 8 and grown[-1] < 90


def test_accumulation_counts_for_the_full_batch() -> None:
    config, plan = settled(10_000_000, batch_size=5, accumulation_steps=8, batch_warmup=True)
    assert (plan.global_batch_size, plan.micro_batch_size) == (40, 5)
    assert 5 < warmup_batch_sizes(config, plan.global_batch_size)[-1] < 40


@pytest.mark.parametrize("tokens", [1, 100, 5_000, 200_000])
def test_a_short_run_has_batches_too(tokens: int) -> None:
    config, plan = settled(tokens)
    sizes = warmup_batch_sizes(config, plan.global_batch_size)
    assert plan.batch_warmup and all(1 <= size <= plan.global_batch_size for size in sizes)


def test_a_resumed_run_keeps_its_batch_whatever_its_budget_has_become() -> None:
    config, plan = settled(10_000_000)
    longer = config.with_values(tokens=90_000_000)
    stream = ListStream([[1, 2]])
    assert resolve(longer, stream, CPU).global_batch_size > plan.global_batch_size
    resumed = resolve(longer, stream, CPU, resumed=plan.to_json())
    assert resumed.global_batch_size == plan.global_batch_size
    assert resumed.total_steps > plan.total_steps


def test_a_resumed_run_keeps_its_regularisation_unless_its_budget_has_changed() -> None:
    stream = ListStream([[1, *[5] * 30, 2]] * 40)
    config = load_config("tiny", tokens=20 * 1280, max_seq_len=32)
    new = resolve(config, stream, CPU)
    assert new.bpe_dropout > 0 and new.dropout > 0
    earlier = new.to_json() | {"dropout": 0.07, "weight_decay": 0.3}
    del earlier["bpe_dropout"]  # as a version without it had it
    kept = resolve(config, stream, CPU, resumed=earlier)
    assert (kept.weight_decay, kept.dropout, kept.bpe_dropout) == (0.3, 0.07, 0.0)
    asked = resolve(config.with_values(dropout=0.5), stream, CPU, resumed=earlier)
    assert (asked.weight_decay, asked.dropout) == (0.3, 0.5)
    longer = resolve(config.with_values(tokens=60 * 1280), stream, CPU, resumed=earlier)
    assert longer.weight_decay == new.weight_decay == 2 and longer.bpe_dropout > 0


def test_noise_ends_before_the_run_unless_an_earlier_version_began_it() -> None:
    stream = ListStream([[1, *[5] * 30, 2]] * 40)
    config = load_config("tiny", tokens=20 * 1280, max_seq_len=32)
    new = resolve(config, stream, CPU)
    assert 0 < new.noise_steps < new.total_steps
    earlier = new.to_json()
    assert resolve(config, stream, CPU, resumed=earlier).noise_steps == new.noise_steps
    del earlier["noise_steps"]
    assert resolve(config, stream, CPU, resumed=earlier).noise_steps == new.total_steps
    longer = resolve(config.with_values(tokens=60 * 1280), stream, CPU, resumed=earlier)
    assert new.noise_steps < longer.noise_steps < longer.total_steps
    often = resolve(config.with_values(tokens=400 * 1280), stream, CPU)
    epochs = 2.5 / 400 * often.total_steps  # without noise: no more than that, however often
    assert often.total_steps - often.noise_steps == pytest.approx(epochs, abs=1)


def test_a_model_that_is_taught_has_less_regularisation_but_noise_to_its_end() -> None:
    stream = ListStream([[1, *[5] * 30, 2]] * 40)
    config = load_config("tiny", tokens=4 * 1280, max_seq_len=32)
    alone = resolve(config, stream, CPU)
    taught = resolve(config.with_values(teacher="a model"), stream, CPU)
    assert taught.noise_steps == taught.total_steps
    for name in ("weight_decay", "dropout", "input_noise", "bpe_dropout"):
        share = getattr(taught, name) / getattr(alone, name)
        assert share == pytest.approx(STUDENT_STRENGTH, rel=0.1)  # both are rounded
    earlier = alone.to_json()  # of a version that made no difference
    kept = resolve(config.with_values(teacher="a model"), stream, CPU, resumed=earlier)
    assert (kept.dropout, kept.noise_steps) == (alone.dropout, alone.noise_steps)


def test_teachers_are_as_many_as_leave_each_enough_epochs() -> None:
    found = {epochs: teachers_for(epochs) for epochs in (1, 26, 27, 75, 77, 103, 105, 10_000)}
    assert found == {1: 0, 26: 0, 27: 1, 75: 1, 77: 2, 103: 2, 105: 3, 10_000: 3}
    assert epochs_each(77, 2) == pytest.approx(77 / 3.8)


def test_by_default_a_cpu_takes_no_more_at_once_than_makes_it_faster() -> None:
    for size, window, expected in (
        (32, 4096, 1),
        (32, 16, 32),
        (32, 1024, 2),
        (5, 512, 5),  # 2560 tokens, not 2 · 1280
        (3, 2**14, 1),
    ):
        assert default_micro_batch_size(size, window, CPU) == expected
    assert default_micro_batch_size(32, 1024, CPU, world_size=2) == 4  # 2 windows on each
    assert default_micro_batch_size(32, 512, GPU) == 32
    assert default_micro_batch_size(256, 512, GPU) == 64


@pytest.mark.parametrize("budget", [{"steps": 40}, {"tokens": 90_000}, {"epochs": 3}])
def test_a_plan_leaves_nothing_open(budget: dict[str, Any]) -> None:
    config = load_config(max_seq_len=16, hidden_size=32, num_attention_heads=2, **budget)
    plan = resolve(config, ListStream([[1, *[5] * 30, 2]] * 40), CPU)
    values = {k: v for k, v in plan.to_json().items() if k != "model"}
    assert all(value is not None for value in values.values())
    assert plan.total_steps >= plan.warmup_steps + plan.decay_steps > 0
    assert plan.eval_interval == plan.save_interval <= -(-plan.total_steps // 10)


def test_a_text_read_often_is_validated_twice_an_epoch_and_one_read_once_ten_times() -> None:
    stream = ListStream([[1, *[5] * 30, 2]] * 400)
    settings = {"max_seq_len": 16, "hidden_size": 32, "num_attention_heads": 2}
    settings |= {"global_batch_size": 8, "batch_warmup": False}
    once = resolve(load_config(**settings), stream, CPU)
    often = resolve(load_config(**settings, epochs=20), stream, CPU)
    assert once.total_steps == 100 and once.eval_interval == 10
    assert often.total_steps == 2000 and often.eval_interval == 50
    given = resolve(load_config(**settings, epochs=20, eval_interval=70), stream, CPU)
    assert given.eval_interval == 70


def test_validations_take_a_twentieth_of_the_time_and_a_resumed_run_measures_the_same() -> None:
    stream = ListStream([[1, *[5] * 30, 2]] * 40_000)

    def found(resumed: dict[str, Any] | None = None, **values: Any) -> RunPlan:
        return resolve(load_config("tiny", max_seq_len=64, **values), stream, CPU, resumed=resumed)

    plan = found(tokens=1_200_000)
    between = 1_200_000 * plan.eval_interval / plan.total_steps
    assert plan.eval_tokens == pytest.approx(between * 3 / 20, rel=0.01)
    assert found(tokens=100_000).eval_tokens == 8192  # fewer would tell too little
    first = plan.to_json()
    assert found(first, tokens=2_400_000).eval_tokens == plan.eval_tokens
    del first["eval_tokens"]  # as the first versions saved it
    assert found(first, tokens=1_200_000).eval_tokens == 65_536
    assert found(first, tokens=1_200_000, eval_tokens=99).eval_tokens == 99
