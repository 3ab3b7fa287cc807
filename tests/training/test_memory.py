"""Memory that runs out: micro-batches in pieces give the same updates, and are found by trying."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.checkpoint.checkpoint import step_name
from jielong.config.settings import IGNORE_INDEX
from jielong.data.batches import Batch
from jielong.model.soft_targets import TeacherTargets
from jielong.model.transformer import Transformer
from jielong.training.memory import is_out_of_memory, micro_batch_that_fits
from jielong.training.optimizer import Optimizer
from jielong.training.teacher import Teacher
from tiny import (
    TINY_RUN,
    flags,
    in_this_process,
    new_optimizer,
    one_step,
    random_batch,
    tiny_config,
    tiny_model,
)


@pytest.mark.parametrize("rows, pieces", [(8, 2), (7, 3), (2, 4)])
def test_pieces_hold_each_row_once_and_are_equally_many_for_any_share(
    rows: int, pieces: int
) -> None:
    batch = random_batch(rows, 8, ignored=0.3)
    parts = batch.split(pieces)
    assert len(parts) == pieces
    assert sum(part.target_count for part in parts) == batch.target_count
    full = parts[: min(rows, pieces)]
    assert torch.equal(torch.cat([part.tokens for part in full]), batch.tokens)
    assert torch.equal(torch.cat([part.targets for part in full]), batch.targets)
    assert all((part.targets == IGNORE_INDEX).all() for part in parts[len(full) :])
    assert batch.targets.ne(IGNORE_INDEX).any()  # the batch itself is as it was


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_moe": True, "router_aux_loss": "sequence"},
        {"use_moe": True, "router_aux_loss": "bias"},
        {"use_moe": True, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.5},
    ],
    ids=["dense", "sequence", "bias", "batch"],
)
def test_pieces_change_no_update(changes: dict[str, Any]) -> None:
    batch, results = random_batch(6, 16, ignored=0.3), []
    uneven = torch.tensor([[90.0, 3.0, 40.0, 60.0], [1.0, 20.0, 100.0, 5.0]])
    load = uneven if "use_moe" in changes else None
    for pieces in (1, 4):
        model = tiny_model(**changes)
        optimizer = new_optimizer(model, tiny_config(optimizer="adamw", adam_eps=1e-3))
        result = one_step(model, optimizer, batch.split(pieces), reference_load=load)
        results.append((result, dict(model.named_parameters())))
    (one, weights), (four, other) = results
    assert one.tokens == four.tokens
    assert one.loss == pytest.approx(four.loss, rel=1e-6)
    assert one.grad_norm == pytest.approx(four.grad_norm, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


def limit_rows(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception | None = None) -> None:
    """Has the model run out of memory with more than `most` rows to train on."""
    real = Transformer.forward

    def forward(self: Transformer, tokens: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if torch.is_grad_enabled() and len(tokens) > most:
            raise error or torch.OutOfMemoryError("no memory is left for 8 GiB")
        return real(self, tokens, *rest, **named)

    monkeypatch.setattr(Transformer, "forward", forward)


def run(words: list[str], folder: Path, *more: str) -> tuple[int, str]:
    return in_this_process([*words, "--out-dir", str(folder), *more])


def losses(folder: Path) -> list[float]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [r["loss"] for r in records if r["kind"] in ("train", "validation")]


@pytest.fixture
def words(corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {"steps": 6, "eval_interval": 2, "keep_checkpoints": 9}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    # a gradient that is nearly zero, divided by itself, would make steps of rounding errors
    return ["pretrain", *flags(settings | {"optimizer": "adamw", "adam_eps": 1e-3})]


def test_a_run_that_does_not_fit_goes_on_in_halves_with_the_same_losses(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(words, tmp_path / "whole")[0] == 0
    with monkeypatch.context() as m:
        limit_rows(m, 1)
        status, said = run(words, tmp_path / "halves")
        assert status == 0
        assert said.count("out of memory at step 1") == said.count("out of memory") == 2
        assert "micro-batches of 2 windows from now on, not 4" in said
        assert "micro-batches of 1 windows from now on, not 2" in said
        assert losses(tmp_path / "halves") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    # what fitted is remembered: a run that resumes has the bits of one that was never stopped
    last = tmp_path / "halves" / "checkpoints" / step_name(6)
    expected = (last / "model.safetensors").read_bytes()
    for path in (last, last.parent / step_name(4)):
        path.rename(tmp_path / path.name)
    status, said = run(words, tmp_path / "halves")
    assert status == 0 and "out of memory" not in said
    assert (last / "model.safetensors").read_bytes() == expected


def test_a_mixture_trains_the_same_however_a_batch_is_split(
    tmp_path: Path, words: list[str]
) -> None:
    words += ["--use-moe", "--num-experts-per-tok=2", "--learning-rate=1e-3"]
    words += ["--router-aux-loss-coef=0.5", "--eval-interval=99"]
    for size in (1, 3, 8):  # of the 8 windows of an update
        status, said = run(words, tmp_path / str(size), f"--micro-batch-size={size}")
        assert status == 0, said
    whole = losses(tmp_path / "8")
    assert len(whole) == 7  # of six updates, and held out
    for size in (1, 3):
        assert losses(tmp_path / str(size)) == pytest.approx(whole, abs=1e-5)


def test_a_single_window_that_does_not_fit_ends_the_run_in_plain_words(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, 0)
    status, said = run(words, tmp_path / "run")
    assert status == 2
    assert "a single window at a time" in said and "--max-seq-len" in said
    assert "Traceback" not in said


def test_auto_finds_what_fits_before_the_first_step(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, 2)
    status, said = run(words, tmp_path / "run", "--micro-batch-size", "auto")
    assert status == 0
    assert (
        "micro-batches of 2 windows fit, of 8 in the global batch" in said
        and "out of memory" not in said
    )
    status, said = run(words, tmp_path / "set", "--micro-batch-size", "1")
    assert status == 0 and "out of memory" not in said


@pytest.mark.parametrize("most, size", [(8, 8), (5, 4), (3, 2), (1, 1), (0, 1)])
def test_the_largest_micro_batch_is_found_and_no_gradient_stays(
    most: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, most)
    model = tiny_model()
    assert micro_batch_that_fits(model, random_batch(8, 16), torch.float32, 8) == size
    assert all(p.grad is None for p in model.parameters())


class LargeTeacher(Teacher):
    """A teacher for whose pass there is memory for two windows."""

    def __call__(self, batch: Batch, device: torch.device) -> TeacherTargets:
        if len(batch.tokens) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().__call__(batch, device)


def test_a_teacher_takes_part_in_the_trial() -> None:
    model, teacher = tiny_model(), LargeTeacher(tiny_model(seed=1))
    batch = random_batch(8, 16)
    assert micro_batch_that_fits(model, batch, torch.float32, 8, teacher) == 2
    assert all(p.grad is None for p in [*model.parameters(), *teacher.model.parameters()])


def test_another_error_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_rows(monkeypatch, 0, error=RuntimeError("shapes do not fit"))
    model = tiny_model()
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        micro_batch_that_fits(model, random_batch(2, 8), torch.float32, 2)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        one_step(model, new_optimizer(model, tiny_config()), [random_batch(2, 8)])


def test_what_the_host_says_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


def test_memory_that_runs_out_in_the_update_ends_the_run_in_plain_words(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Optimizer, lr_scale: float) -> None:
        torch.empty(2**50)

    monkeypatch.setattr(Optimizer, "step", step)
    status, said = run(words, tmp_path / "run")
    assert status == 2
    assert "out of memory" in said and "smaller model" in said and "Traceback" not in said


@pytest.mark.parametrize("value", ["0", "-2", "most", "1.5"])
def test_a_size_that_is_none_is_refused(words: list[str], tmp_path: Path, value: str) -> None:
    status, said = run(words, tmp_path / "run", f"--micro-batch-size={value}")
    assert status == 2 and "training.micro_batch_size" in said
