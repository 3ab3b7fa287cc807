"""A run of `--minutes` is given another budget where it would not end in time."""

from __future__ import annotations

import re
import shutil
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.training import minutes, pace, pretrain
from jielong.training.pace import Pace
from jielong.training.speed import Speed
from tiny import TEXTS, in_this_process

MINUTES = 0.1
CHECK = 10  # the step after which it is corrected
TOKENS = 20_000  # about, of the first budget


def test_the_time_left_counts_the_work_of_each_step_and_the_pauses() -> None:
    even = Pace(float, first_step=0)
    even.trained(10, 10.0)
    assert even.training_left(10, 100) == 90 and even.pauses_left(9) == 0
    even.paused(1.0)
    even.paused(3.0)
    assert even.pauses_left(9) == 18
    growing = Pace(lambda step: float(step**2), first_step=10)  # later steps are larger
    growing.trained(50, 24.0)
    assert growing.training_left(50, 100) == pytest.approx(75)


def test_the_budget_is_looked_at_first_after_some_time_then_after_twice_as_long() -> None:
    measured = Pace(float, first_step=0)
    measured.trained(10, 5.9)
    assert not measured.tells_enough(100.0)
    measured.trained(11, 0.1)
    assert measured.tells_enough(100.0)
    measured.checked_s = measured.trained_s
    measured.trained(20, 5.9)
    assert not measured.tells_enough(94.0)
    measured.trained(21, 0.2)
    assert measured.tells_enough(94.0)
    corrected = Pace(float, first_step=21)
    corrected.trained(40, 16.0)
    assert not corrected.tells_enough(88.0)
    corrected.trained(44, 2.0)
    assert corrected.tells_enough(88.0)


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run in which no time passes, on a machine whose speed is made up."""
    monkeypatch.setattr(minutes, "measure_speed", lambda *_: Speed(60 * MINUTES / TOKENS, 1e-9))
    still = SimpleNamespace(monotonic=lambda: 0.0, perf_counter=time.perf_counter)
    monkeypatch.setattr(pretrain, "time", still)
    monkeypatch.setattr(pace, "time", still)
    once = lambda self, available: self.step == CHECK and self.first_step == 0  # noqa: E731
    monkeypatch.setattr(Pace, "tells_enough", once)
    monkeypatch.setattr(Pace, "pauses_left", lambda *_: 0.0)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(TEXTS))
    words = ["pretrain", "--data-path", str(text), "--out-dir", str(tmp_path / "run")]
    words += f"--minutes {MINUTES} --sample-tokens 0 --device cpu --global-batch-size 1".split()
    return [*words, "--keep-checkpoints", "99", "--patience", "0"]


@pytest.mark.parametrize(("pace_of", "change"), [(2.0, "slower"), (0.5, "faster"), (0.96, None)])
def test_the_budget_follows_the_speed_of_the_run_itself(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    pace_of: float,
    change: str | None,
) -> None:
    def left(self: Pace, step: int, total_steps: int) -> float:
        corrected = self.first_step > 0  # then it fits
        return 60 * MINUTES * (pace.USED_SHARE if corrected else pace_of)

    monkeypatch.setattr(Pace, "training_left", left)
    status, said = in_this_process(words)
    assert status == 0, said
    lines = re.findall(
        r"step (\d+) · training is (\w+) than expected: ([\d.]+)M tokens instead", said
    )
    run = tmp_path / "run"
    kept = tomllib.loads((run / "chosen.toml").read_text())["training"]["tokens"]
    last = ckpt.find_model_folder(run, "last")
    plan = ckpt.load_training_state(last).values["plan"]
    assert ckpt.step_of(last) == plan["total_steps"]
    if change is None:
        assert not lines
        return
    assert [line[1] for line in lines][:1] == [change]
    assert said.count("budget     ") == 1 and "resuming from" not in said
    step, total = int(lines[0][0]), plan["total_steps"]
    planned = int(re.findall(r"budget +(\d+) steps", said)[0])
    assert step == CHECK and total == pytest.approx(
        step + (planned - step) * pace.USED_SHARE / pace_of, abs=1
    )
    assert f"{kept / 1e6:.2f}" == lines[0][2]


def test_stopped_after_the_correction_and_resumed_equals_never_stopped(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "training_left", lambda *_: 60 * MINUTES * 1.5)
    status, said = in_this_process(words)
    assert status == 0 and "training is slower" in said, said
    run = tmp_path / "run"
    end = ckpt.find_model_folder(run, "last")
    weights = (end / "model.safetensors").read_bytes()
    (corrected,) = map(int, re.findall(r"step (\d+) · training is slower", said))
    for folder in ckpt.checkpoints(run / "checkpoints"):
        if ckpt.step_of(folder) > corrected:
            shutil.rmtree(folder)
    status, said = in_this_process(words)
    assert status == 0 and f"resuming from {run}" in said and "training is" not in said, said
    assert (end / "model.safetensors").read_bytes() == weights
