"""Row 16: a gradient that is not finite changes nothing, is named, and in time ends the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jielong.checkpoint import checkpoint
from jielong.checkpoint.weights import load_tensors
from jielong.config.load import load_config
from jielong.data.batches import Batches
from jielong.data.shards import open_dataset
from jielong.training.step import StepResult, TrainStep
from tiny import TINY_RUN, ListStream, flags, in_this_process, random_documents, tiny_config


def train(
    folder: Path,
    words: list[str],
    monkeypatch: Any,
    poisoned: set[int],
    omitted: set[int] = frozenset(),  # type: ignore[assignment]
) -> tuple[int, str]:
    """A run in which the gradients of the given steps (from 0) turn to NaN in the backward pass.

    The batches of the steps `omitted` are not even looked at.
    """
    real, seen = TrainStep.__call__, [0]

    def poisoning(train_step: TrainStep, *arguments: Any, **options: Any) -> Any:
        step, seen[0] = seen[0], seen[0] + 1
        if step in omitted:
            return StepResult(float("nan"), 1, float("nan"), applied=False)
        hooks = []
        if step in poisoned:
            p = next(train_step.model.parameters())
            hooks.append(p.register_hook(lambda grad: grad * float("nan")))
        result = real(train_step, *arguments, **options)
        for hook in hooks:
            hook.remove()
        return result

    with monkeypatch.context() as m:
        m.setattr(TrainStep, "__call__", poisoning)
        return in_this_process([*words, "--out-dir", str(folder)])


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


def test_the_run_ends_with_the_bits_of_one_that_never_saw_the_batch(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "poisoned", words, monkeypatch, {4})[0] == 0
    assert train(tmp_path / "omitted", words, monkeypatch, set(), {4})[0] == 0
    assert train(tmp_path / "clean", words, monkeypatch, set())[0] == 0
    one, other, clean = (state(tmp_path / n, 10) for n in ("poisoned", "omitted", "clean"))
    assert all(torch.equal(one[name], other[name]) for name in one | other)
    assert not all(torch.equal(one[name], clean[name]) for name in one)


def test_the_record_names_every_document_of_the_batch(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--packing", "pad"]  # a row is a document there
    assert train(tmp_path / "run", words, monkeypatch, {4})[0] == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (record,) = (r for r in map(json.loads, lines) if r["kind"] == "skipped")
    config = load_config(file=tmp_path / "run" / "config.toml")
    stream = open_dataset(tmp_path / "run" / "data").train
    batches = Batches(stream, config.data, config.training)
    assert record["step"] == 5
    assert record["documents"] == sorted(batches.step_windows(4).tolist())


def test_documents_of_packed_windows_are_those_with_a_token_in_them() -> None:
    documents = random_documents(40, 12, seed=3)
    config = tiny_config(max_seq_len=8)
    batches = Batches(ListStream(documents), config.data, config.training)
    belongs = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    for windows in ([0], [3], [batches.windows - 1], [1, 2, 9]):
        inside = [belongs[w * 8 : w * 8 + 9].tolist() for w in windows]
        documents = sorted({d for row in inside for d in row})
        assert batches.documents_of(np.array(windows), 0) == documents


def test_too_many_in_a_row_end_the_run_with_a_diagnosis_and_sound_checkpoints(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = train(tmp_path / "run", words, monkeypatch, set(range(3, 10)))
    assert status == 2
    assert "5 steps in a row" in said and "learning-rate" in said and "Traceback" not in said
    newest, problems = checkpoint.latest_valid_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None and not problems
    weights = load_tensors(newest / "model.safetensors").values()
    assert all(value.isfinite().all() for value in weights)
    # the fault gone, the same command goes on from there
    status, said = train(tmp_path / "run", words, monkeypatch, set())
    assert status == 0 and "resuming" in said
