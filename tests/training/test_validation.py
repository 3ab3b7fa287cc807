"""Validation along a run: it comes after saving, fits in memory, and compares like with like."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.evaluation.likelihood import Likelihood
from jielong.training import validation
from tiny import TINY_RUN, flags, in_this_process

STEPS = 6


@pytest.fixture
def words(corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {"steps": STEPS, "eval_interval": 2, "keep_checkpoints": 9}
    return ["pretrain", *flags(settings | {"data_path": corpus_file, "tokenizer": tokenizer_dir})]


def run(words: list[str], folder: Path, *more: str) -> tuple[int, str]:
    return in_this_process([*words, "--out-dir", str(folder), *more])


def validations(folder: Path, kind: str = "validation") -> list[tuple[int, float]]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(r["step"], r["loss"]) for r in records if r["kind"] == kind]


def state(folder: Path) -> dict[str, Any]:
    newest, _ = ckpt.latest_valid_checkpoint(folder / "checkpoints")
    assert newest is not None
    progress: dict[str, Any] = ckpt.load_training_state(newest).values["progress"]
    return progress


def replace(monkeypatch: pytest.MonkeyPatch, instead: Callable[..., Any]) -> None:
    """Has `instead(real, max_tokens, at_once)` answer for the likelihood of held-out text."""
    real = validation.evaluate_stream

    def evaluate(*rest: Any, **named: Any) -> Likelihood:
        found: Likelihood = instead(
            lambda: real(*rest, **named), rest[3].max_tokens, rest[3].batch_size
        )
        return found

    monkeypatch.setattr(validation, "evaluate_stream", evaluate)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_what_goes_wrong_in_a_validation_costs_no_training(
    failing: int, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(words, tmp_path / "whole")[0] == 0
    calls = []

    def fails(real: Callable[[], Any], *_: Any) -> Any:
        calls.append(1)
        if len(calls) == failing:
            raise OSError("the disk with the held-out text is gone")
        return real()

    with monkeypatch.context() as m:
        replace(m, fails)
        status, said = run(words, tmp_path / "failed")
        assert status == 2 and "held-out text is gone" in said
    newest, _ = ckpt.latest_valid_checkpoint(tmp_path / "failed" / "checkpoints")
    assert newest is not None and ckpt.step_of(newest) == 2 * failing
    status, said = run(words, tmp_path / "failed")
    assert status == 0 and "resuming from" in said
    assert validations(tmp_path / "failed") == validations(tmp_path / "whole")
    ours, theirs = state(tmp_path / "failed"), state(tmp_path / "whole")
    assert ours["best_step"] == theirs["best_step"]
    assert ours["validation"]["loss"] == theirs["validation"]["loss"]


def test_a_validation_that_was_recorded_is_not_made_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(words, tmp_path)[0] == 0
    expected = validations(tmp_path)
    for step in (4, 6):
        shutil.rmtree(tmp_path / "checkpoints" / ckpt.step_name(step))
    made: list[int | None] = []

    def counted(real: Callable[[], Any], max_tokens: int | None, _: int) -> Any:
        made.append(max_tokens)
        return real()

    replace(monkeypatch, counted)
    status, said = run(words, tmp_path)
    assert status == 0 and "resuming from" in said
    assert len(made) == 2  # at 4 and at 6
    assert validations(tmp_path) == expected
    assert state(tmp_path)["validation"]["step"] == STEPS


def test_it_goes_on_in_halves_where_memory_runs_out(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(words, tmp_path / "whole")[0] == 0
    sizes: list[int] = []

    def small(real: Callable[[], Any], _: Any, at_once: int) -> Any:
        sizes.append(at_once)
        if at_once > 1:
            raise torch.OutOfMemoryError("no memory is left for 8 GiB")
        return real()

    real_stream = validation.evaluate_stream
    replace(monkeypatch, small)
    assert run(words, tmp_path / "halves")[0] == 0
    assert sizes[:3] == [4, 2, 1] and real_stream is not validation.evaluate_stream
    pairs = zip(validations(tmp_path / "halves"), validations(tmp_path / "whole"), strict=True)
    for (step, loss), (other_step, other) in pairs:
        assert step == other_step and loss == pytest.approx(other, abs=1e-5)


def test_it_takes_no_more_at_once_than_training_has_found_to_fit(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    replace(monkeypatch, lambda real, _, at_once: sizes.append(at_once) or real())
    assert run(words, tmp_path, "--micro-batch-size=2")[0] == 0
    assert set(sizes) == {2}


def test_the_best_step_is_chosen_by_the_same_tokens_at_every_step(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole held-out text, read at the end only, may be harder than the sample."""
    losses = iter([3.0, 2.5, 2.0])

    def given(real: Callable[[], Likelihood], max_tokens: int | None, _: int) -> Likelihood:
        loss = 4.0 if max_tokens is None else next(losses)
        return dataclasses.replace(real(), loss=loss)

    replace(monkeypatch, given)
    status, said = run(words, tmp_path, "--eval-tokens=32")
    assert status == 0 and "whole held-out split: loss 4.0000" in said
    assert (state(tmp_path)["best_step"], state(tmp_path)["best_loss"]) == (STEPS, 2.0)
    assert validations(tmp_path) == [(2, 3.0), (4, 2.5), (6, 2.0)]
    assert validations(tmp_path, "final_validation") == [(6, 4.0)]
    assert state(tmp_path)["validation"]["loss"] == 4.0
