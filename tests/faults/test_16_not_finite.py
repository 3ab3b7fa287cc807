"""Row 16: a gradient that is not finite changes nothing, is named, and in time ends the run."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong import checkpoint
from jielong.cli import main
from jielong.model.weights import load_tensors
from tiny import TINY_RUN, flags

import jielong.pretrain  # noqa: F401  isort: skip  (the package's own name for it is the function)

story = sys.modules["jielong.pretrain"]


def train(folder: Path, words: list[str], monkeypatch: Any, poisoned: set[int]) -> tuple[int, str]:
    """A run in which the gradients of the given steps (from 0) turn to NaN in the backward pass."""
    real, said, seen = story.train_step, io.StringIO(), [0]

    def poisoning(model: torch.nn.Module, *arguments: Any, **options: Any) -> Any:
        step, seen[0] = seen[0], seen[0] + 1
        hooks = []
        if step in poisoned:
            p = next(model.parameters())
            hooks.append(p.register_hook(lambda grad: grad * float("nan")))
        result = real(model, *arguments, **options)
        for hook in hooks:
            hook.remove()
        return result

    monkeypatch.setattr(story, "train_step", poisoning)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main([*words, "--out-dir", str(folder)])
    monkeypatch.setattr(story, "train_step", real)
    return status, said.getvalue()


@pytest.fixture
def words(corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {"steps": 10, "eval_interval": 2, "keep_checkpoints": 9}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    return ["pretrain", *flags(settings)]


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    path = folder / "checkpoints" / checkpoint.step_name(step)
    return load_tensors(path / "model.safetensors") | load_tensors(path / "optimizer.safetensors")


def test_a_poisoned_batch_changes_no_parameter_and_no_state_and_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = train(tmp_path / "run", words, monkeypatch, {2, 3})
    assert status == 0
    before, after = state(tmp_path / "run", 2), state(tmp_path / "run", 4)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "step 3: loss" in said and "at documents" in said and "skipped" in said
    changed = state(tmp_path / "run", 6)
    assert not torch.equal(changed["model.norm.weight"], after["model.norm.weight"])


def test_too_many_in_a_row_end_the_run_with_a_diagnosis_and_sound_checkpoints(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = train(tmp_path / "run", words, monkeypatch, set(range(3, 10)))
    assert status == 2
    assert "5 steps in a row" in said and "learning-rate" in said and "Traceback" not in said
    newest, problems = checkpoint.newest_valid(tmp_path / "run" / "checkpoints")
    assert newest is not None and not problems
    weights = load_tensors(newest / "model.safetensors").values()
    assert all(value.isfinite().all() for value in weights)
    # the fault gone, the same command goes on from there
    status, said = train(tmp_path / "run", words, monkeypatch, set())
    assert status == 0 and "resuming" in said
