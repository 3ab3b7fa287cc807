"""What looks wrong is said once, with what to try; what is healthy is met with silence."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from jielong.observe.health import Finding, Health

VOCAB = 2048
UNIFORM = math.log(VOCAB)
Curve = Callable[[float], float]  # of the share of the run that is done


def healthy_loss(done: float) -> float:
    """A power law, as Kaplan et al. 2020 measure it, from ln(V) on."""
    return 2.0 + (UNIFORM - 2.0) * (1 + 60 * done) ** -0.4


def records(
    loss: Curve = healthy_loss,
    norm: Curve = lambda done: 0.8 + 3 * (1 + 100 * done) ** -0.5,
    speed: Curve = lambda done: 1000.0,
    rate: Curve = lambda done: min(1.0, 2 * (1 - done)),
    count: int = 400,
    noise: float = 0.02,
    seed: int = 0,
    loads: Callable[[int], Any] = lambda n: None,
) -> list[dict[str, Any]]:
    """Records of a run of 10 · count steps; losses have noise as batches of text have."""
    draw = random.Random(seed)
    found, tokens = [], 0
    for n in range(1, count + 1):
        done, tokens = n / count, tokens + 5000
        record = {
            "step": 10 * n,
            "loss": loss(done) * (1 + draw.gauss(0, noise)),
            "grad_norm": norm(done) * math.exp(draw.gauss(0, 0.15)),
            "learning_rate": rate(done),
            "tokens": tokens,
            "tokens_per_second": speed(done) * math.exp(draw.gauss(0, 0.1)),
        }
        if (load := loads(n)) is not None:
            record["expert_load"] = load
        found.append(record)
    return found


def watched(
    train: list[dict[str, Any]], held: dict[int, float] | None = None, warmup: int = 20
) -> list[tuple[int, Finding]]:
    """What a run is told and when, record by record."""
    health, told = Health(VOCAB, warmup), []
    for record in train:
        told += [(record["step"], f) for f in health.see("train", record)]
        if held and record["step"] in held:
            validation = {"step": record["step"], "loss": held[record["step"]]}
            told += [(record["step"], f) for f in health.see("validation", validation)]
    return told


def names(told: list[tuple[int, Finding]]) -> list[str]:
    return [finding.name for _, finding in told]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.005, 0.02, 0.06])
@pytest.mark.parametrize("count", [30, 400, 1500])
def test_a_run_that_learns_is_told_nothing(seed: int, noise: float, count: int) -> None:
    held = {
        s: healthy_loss(s / (10 * count)) * 1.02 for s in range(50, 10 * count, 10 * count // 9)
    }
    assert watched(records(noise=noise, seed=seed, count=count), held) == []


def test_the_flat_end_of_a_schedule_and_a_gentle_growth_of_the_gradient_are_healthy() -> None:
    ends = records(
        loss=lambda done: healthy_loss(min(done, 0.8)),
        rate=lambda done: max(0.0, 1 - done) ** 2,  # nothing is learnt any more at its end
        norm=lambda done: 0.5 + done,
    )
    assert watched(ends[:-60]) == [] and watched(ends) == []


def test_a_loss_that_stays_where_it_is_is_flat_and_that_is_said_once() -> None:
    stuck = records(
        loss=lambda done: max(healthy_loss(done), healthy_loss(0.1)), rate=lambda d: 1.0
    )
    told = watched(stuck)
    assert names(told) == ["flat_loss"]
    step, finding = told[0]
    assert step >= 1000 and "flat since step" in finding.text and "--learning-rate" in finding.text


def test_a_loss_far_above_a_random_guess_is_said_at_once() -> None:
    told = watched(records(loss=lambda done: UNIFORM + 4 * done, count=200))
    assert "above_uniform" in names(told)
    step, finding = next(pair for pair in told if pair[1].name == "above_uniform")
    assert step < 800 and f"{UNIFORM:.2f}" in finding.text


def test_a_loss_that_never_leaves_a_random_guess_is_said_after_some_steps() -> None:
    told = watched(records(loss=lambda done: UNIFORM, noise=0.002, count=60))
    assert names(told)[0] == "near_uniform" and told[0][0] >= 120
    assert watched(records(loss=lambda done: UNIFORM, count=9)) == []  # too early to tell


def test_a_gradient_that_grows_while_the_loss_does_not_fall_is_said() -> None:
    grows = {"norm": lambda done: 1.0 if done < 0.8 else 9.0}
    loss: Curve = lambda done: healthy_loss(min(done, 0.75)) + max(0.0, done - 0.75)  # noqa: E731
    assert "growing_gradient" in names(watched(records(loss, **grows)))
    falls: Curve = lambda done: 6 - 4 * done  # noqa: E731
    assert watched(records(falls, **grows, noise=0.002)) == []  # whatever it is, it learns


@pytest.mark.parametrize(("rise", "said"), [(0.03, True), (0.002, False)])
def test_a_held_out_loss_that_rises_while_the_training_loss_falls_is_said(
    rise: float, said: bool
) -> None:
    held = {
        s: 4 - s / 2000 if s <= 2000 else 3 + rise * (s - 2000) / 400 for s in range(400, 4001, 400)
    }
    told = watched(records(), held)
    assert names(told) == (["memorising"] if said else [])
    if said:
        assert told[0][0] == 2800 and "3.000 at step 2000" in told[0][1].text


def test_a_training_loss_that_rises_as_well_is_not_memorising() -> None:
    held = {s: 3.0 if s <= 2000 else 3.2 for s in range(400, 4001, 400)}
    worse = records(loss=lambda done: 3.0 if done < 0.5 else 3.3, noise=0.001)
    assert "memorising" not in names(watched(worse, held))


def test_a_run_that_slows_down_for_a_minute_is_said_and_a_short_pause_is_not() -> None:
    slow = records(speed=lambda done: 1000.0 if done < 0.7 else 500.0)
    told = watched(slow)
    assert names(told) == ["slower"] and "tokens/s" in told[0][1].text
    pause = records(speed=lambda done: 300.0 if 0.5 < done < 0.505 else 1000.0)
    assert watched(pause) == []
    quick = [dict(r, tokens=r["tokens"] // 100) for r in slow]  # all is over in seconds
    assert watched(quick) == []


def test_other_programs_that_use_much_of_the_processors_for_some_time_are_said() -> None:
    def with_others(share: Curve) -> list[dict[str, Any]]:
        train = records()
        return [dict(r, others_share=share(n / len(train))) for n, r in enumerate(train)]

    told = watched(with_others(lambda done: 0.4))
    assert names(told) == ["shared"] and "40% of this machine" in told[0][1].text
    assert names(watched(with_others(lambda done: 0.6 if done > 0.5 else 0.0))) == ["shared"]
    assert watched(with_others(lambda done: 0.1)) == []
    brief = with_others(lambda done: 0.4)
    assert watched([dict(r, tokens=r["tokens"] // 1000) for r in brief]) == []


def test_the_speed_of_an_earlier_start_does_not_count() -> None:
    train = records(speed=lambda done: 1000.0 if done < 0.5 else 400.0)
    health = Health(VOCAB, 20, train=train[:200], first_here=200)
    assert [f for r in train[200:] for f in health.see("train", r)] == []


def test_an_expert_that_gets_no_token_is_named_and_a_lazy_one_is_not() -> None:
    dead = records(loads=lambda n: [[50, 50], [100, 0] if n > 100 else [60, 40]])
    told = watched(dead)
    assert names(told) == ["unused_expert"] and "expert 1 of layer 2" in told[0][1].text
    lazy = records(loads=lambda n: [[50, 50], [100, 0] if n % 15 else [99, 1]])
    assert watched(lazy) == []


def test_records_of_a_run_that_is_not_finite_break_nothing() -> None:
    train = records()
    for record in train[::3]:
        record["loss"] = record["grad_norm"] = None
    assert watched(train, {2000: math.nan, 2400: math.inf, 2800: 3.0}) == []


def test_a_text_read_often_is_told_once_at_each_mark() -> None:
    health, told = Health(VOCAB, 20, epoch_tokens=50_000), []
    for record in records():  # 400 records of 5000 tokens: the text is read 40 times
        told += [(record["tokens"], f.name) for f in health.see("train", record)]
    read = [(tokens // 50_000, name) for tokens, name in told if name.startswith("read_")]
    assert [name for _, name in read] == ["read_4_times", "read_16_times", "read_40_times"]
    assert [times for times, _ in read] == [4, 16, 40]


@pytest.mark.parametrize("held_out", [True, False])
def test_a_run_that_holds_no_text_out_is_not_told_to_watch_its_loss(held_out: bool) -> None:
    health = Health(VOCAB, 20, epoch_tokens=50_000, held_out=held_out)
    told = [f.text for r in records() for f in health.anew().see("train", r)]
    told += [f.text for r in records() for f in health.see("train", r)]
    assert told and all(("Watch the held-out loss" in text) == held_out for text in told)
    assert all(("no text is held out" in text) != held_out for text in told)


def test_a_text_that_is_read_once_is_met_with_silence() -> None:
    health = Health(VOCAB, 20, epoch_tokens=2_000_000)
    assert not [f for record in records() for f in health.see("train", record)]
