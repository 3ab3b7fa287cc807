"""Row 18: a loss that explodes is seen at once; the run can go back and leave the batch out."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint
from jielong.training import recovery as guard
from jielong.training import spikes
from tiny import TINY_RUN, flags, in_this_process

STEPS, HARMED = 60, 33  # the update that is a hundred times too large, from 0


def is_spike(losses: list[float], loss: float) -> bool:
    return spikes.score(losses, loss) > spikes.LIMIT


def test_a_falling_noisy_loss_is_no_spike() -> None:
    rng, seen = random.Random(1), []
    for step in range(3000):
        loss = 2 + 6 / (1 + step / 40) + rng.gauss(0, 0.15)
        assert not is_spike(seen, loss), step
        spikes.remember(seen, loss)
    assert len(seen) == spikes.WINDOW
    assert is_spike(seen, 2 * loss)


def test_an_even_loss_is_no_ground_for_alarm_at_every_hair() -> None:
    seen = [3.0] * 40
    assert not is_spike(seen, 3.5)
    assert is_spike(seen, 3.7)
    assert not is_spike(seen, 0.5)  # lower is good
    assert not is_spike(seen[:10], 30.0)  # too few to judge by


def train(
    words: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *more: str,
    harmed: int = -1,
    last: int = -1,
) -> tuple[int, str]:
    """A run; updates from step `harmed` to `last` have a hundred times the learning rate."""

    def harming(state: Any, batch: Any, lr_scale: float) -> Any:
        times = 100 if harmed <= state.progress.step <= max(harmed, last) else 1
        return guard.step_with_recovery(state, batch, times * lr_scale)

    with monkeypatch.context() as m:
        m.setattr("jielong.training.pretrain.step_with_recovery", harming)
        return in_this_process([*words, "--out-dir", str(folder), *more])


@pytest.fixture
def words(corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {"steps": STEPS, "eval_interval": 10, "keep_checkpoints": 9}
    settings |= {"share_spelling": False}  # so few steps that two left out would cost more with it
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    return ["pretrain", *flags(settings)]


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == kind]


def weights(folder: Path, step: int = STEPS) -> bytes:
    path = folder / "checkpoints" / checkpoint.step_name(step)
    return (path / "model.safetensors").read_bytes() + (path / "optimizer.safetensors").read_bytes()


def test_it_is_named_within_a_step_and_by_default_the_run_goes_on(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = train(words, tmp_path / "run", monkeypatch, harmed=HARMED)
    assert status == 0
    (spike, *_) = records(tmp_path / "run", "spike")
    assert spike["step"] == HARMED + 2 and spike["documents"]  # steps are counted from 1
    assert f"step {HARMED + 2}: the loss jumps" in said and "back to step" not in said


def test_the_run_goes_back_leaves_the_batches_out_and_ends_as_if_unharmed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewind = ("--on-loss-spike", "rewind")
    assert train(words, tmp_path / "clean", monkeypatch, *rewind)[0] == 0
    status, said = train(words, tmp_path / "run", monkeypatch, *rewind, harmed=HARMED)
    assert status == 0
    assert said.count("back to step 30; steps 34 to 35 will be left out") == 1
    assert [r["step"] for r in records(tmp_path / "run", "omitted")] == [34, 35]
    assert [r["step"] for r in records(tmp_path / "run", "spike")] == [35]
    clean, ours = (records(tmp_path / n, "validation")[-1]["loss"] for n in ("clean", "run"))
    assert ours == pytest.approx(clean, rel=0.03)
    # and killed before or after, it ends with the same bits
    for kept in (20, 40):
        again = tmp_path / f"from {kept}"
        shutil.copytree(tmp_path / "run", again)
        for path in checkpoint.checkpoints(again / "checkpoints"):
            if checkpoint.step_of(path) > kept:
                shutil.rmtree(path)
        status, said = train(words, again, monkeypatch, *rewind, harmed=HARMED)
        assert status == 0 and f"resuming from {again}" in said
        assert ("back to step" in said) == (kept < HARMED)
        assert weights(again) == weights(tmp_path / "run")
        assert [r["step"] for r in records(again, "spike")] == [35]  # once, though it came twice


def test_a_checkpoint_that_already_has_the_harm_is_not_gone_back_to(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--on-loss-spike", "rewind"]
    status, said = train(words, tmp_path / "run", monkeypatch, harmed=39)  # saved after that step
    assert status == 0
    assert "back to step 30; steps 40 to 41 will be left out" in said
    # killed after the next save, before the step that jumped: it is left out, so its record stays
    for path in checkpoint.checkpoints(tmp_path / "run" / "checkpoints"):
        if checkpoint.step_of(path) > 40:
            shutil.rmtree(path)
    status, said = train(words, tmp_path / "run", monkeypatch, harmed=39)
    assert status == 0 and "resuming from" in said and "back to step" not in said
    assert [r["step"] for r in records(tmp_path / "run", "spike")] == [41]


def test_a_spike_before_the_first_checkpoint_goes_back_to_the_start(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--on-loss-spike", "rewind", "--eval-interval", "30"]
    status, said = train(words, tmp_path / "run", monkeypatch, harmed=20)
    assert status == 0
    assert "back to step 0; steps 21 to 22 will be left out" in said
    losses = [r["loss"] for r in records(tmp_path / "run", "train")]
    assert losses[-1] < losses[0]


def test_each_further_time_more_is_left_out(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad text may be longer than a batch: here what is learnt from steps 34 to 38 is harmful."""
    words = [*words, "--on-loss-spike", "rewind"]
    status, said = train(words, tmp_path / "run", monkeypatch, harmed=33, last=37)
    assert status == 0, said
    omitted = {r["step"] for r in records(tmp_path / "run", "omitted")}
    assert omitted >= {34, 35, 36, 37, 38} and len(omitted) < 16
    assert 2 <= said.count("back to step 30") <= 4
    spikes_said = [int(step) for step in re.findall(r"step (\d+): the loss jumps", said)]
    assert [r["step"] for r in records(tmp_path / "run", "spike")] == spikes_said


def test_going_back_needs_an_older_checkpoint(words: list[str], tmp_path: Path) -> None:
    more = ("--on-loss-spike", "rewind", "--keep-checkpoints", "1")
    status, said = in_this_process([*words, "--out-dir", str(tmp_path / "run"), *more])
    assert status == 2 and "run.keep_checkpoints" in said
