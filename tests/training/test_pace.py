"""A run of `--minutes` is given another budget where it would not end in time."""

from __future__ import annotations

import bisect
import math
import re
import shutil
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.reports.history import read_history
from jielong.reports.report import report
from jielong.training import minutes, pace, pretrain
from jielong.training.pace import CHECKS, Pace
from jielong.training.speed import Speed
from tiny import TEXTS, in_this_process

MINUTES = 0.1
CHECK = 10  # the step after which it is corrected
TOKENS = 20_000  # about, of the first budget


def test_the_time_left_counts_the_work_of_each_step_and_the_pauses() -> None:
    even = Pace()
    even.start(0.0, 0, 100, update=1.0)
    even.trained(9.0, 1, 10.0)
    assert even.seconds_of(80.0, 10) == pytest.approx(90) and even.pause_s(expected=2.0) == 2
    for seconds in (5.0, 1.0, 1.2):  # the first one imports what it needs
        even.paused(seconds)
    assert even.pause_s(expected=2.0) == 1.2


def test_the_speed_is_that_of_the_latest_half_of_the_time() -> None:
    measured = Pace()
    measured.start(0.0, 0, 1000, update=0.0)
    for number in range(1, 11):
        measured.trained(100.0 * number, 10 * number, 10.0)  # slow at first
    assert measured.seconds_of(10.0, 1) == pytest.approx(1.0)
    for number in range(1, 21):
        measured.trained(1000 + 100.0 * number, 100 + 10 * number, 5.0)
    assert measured.seconds_of(10.0, 1) == pytest.approx(0.5)
    measured.start(500.0, 50, 1000, update=0.0)  # back; what is known of its speed stays
    measured.trained(600.0, 60, 5.0)
    assert measured.seconds_of(10.0, 1) == pytest.approx(0.5)


@pytest.mark.parametrize("expected", [0.0, 1.0, 6.0])
def test_what_an_update_costs_is_measured_as_the_batches_grow(expected: float) -> None:
    """Though another cost of it was expected: batches of 2 to 8 windows, 0.1 s each, 0.3 s more."""
    measured, windows, errors = Pace(), 0.0, []
    measured.start(0.0, 0, 1000, expected)
    for number, size in enumerate([2] * 5 + [3] * 5 + [4] * 5 + [6] * 5 + [8] * 5, start=1):
        windows += size
        measured.trained(windows, number, 0.1 * size + 0.3)
        errors.append(abs(measured.seconds_of(11, 1) / 1.4 - 1))
    assert errors[-1] < 0.04 < errors[0] and errors[14] < 0.7 * errors[0]


def test_batches_of_one_size_leave_the_cost_of_an_update_as_it_was_expected() -> None:
    measured = Pace()
    measured.start(0.0, 0, 1000, update=3.0)
    for number in range(1, 40):
        measured.trained(3.0 * number, number, 0.6 + 0.1 * math.sin(number))
    assert measured.fit.windows_of_update(3.0) == pytest.approx(3.0, abs=0.05)
    assert measured.seconds_of(6, 1) / measured.seconds_of(3, 1) == pytest.approx(1.5, abs=0.01)


def test_the_budget_is_checked_three_times_and_the_last_time_before_it_is_too_late() -> None:
    pace = Pace()
    pace.start(0.0, 0, 100, 1.0)
    found = {step: pace.check_due(step, step + 10, 100, 1e9) for step in range(10, 50, 10)}
    assert [step for step, check in found.items() if check] == [10, 30, 40]
    assert found[40] is CHECKS[-1] and found[10] is CHECKS[0]
    pace.start(40.0, 40, 200, 1.0)  # corrected: the last one comes once more
    again = {step: pace.check_due(step, step + 10, 200, 1e9) for step in range(50, 100, 10)}
    assert [step for step, check in again.items() if check] == [50, 90]


def test_a_budget_that_is_far_too_large_is_checked_by_the_time_that_it_has_taken() -> None:
    pace = Pace()
    pace.start(0.0, 0, 10_000, 1.0)
    pace.trained(10.0, 10, 10.0)
    assert pace.check_due(10, 20, 10_000, available=100.0) is None
    pace.trained(20.0, 20, 10.0)
    assert pace.check_due(20, 30, 10_000, available=90.0) is CHECKS[0]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run in which no time passes, on a machine whose speed is made up."""
    monkeypatch.setattr(minutes, "measure_speed", lambda *_: Speed(60 * MINUTES / TOKENS, 1e-9))
    still = SimpleNamespace(monotonic=lambda: 0.0, perf_counter=time.perf_counter)
    monkeypatch.setattr(pretrain, "time", still)
    monkeypatch.setattr(pace, "time", still)
    once = lambda _, step, *__: CHECKS[-1] if step == CHECK else None  # noqa: E731
    monkeypatch.setattr(Pace, "check_due", once)
    monkeypatch.setattr(pace, "pauses_left", lambda *_: 0.0)
    monkeypatch.setattr(pace, "END_S", 0.0)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(TEXTS))
    words = ["pretrain", "--data-path", str(text), "--out-dir", str(tmp_path / "run")]
    words += f"--minutes {MINUTES} --sample-tokens 0 --device cpu --global-batch-size 1".split()
    return [*words, "--keep-checkpoints", "99", "--patience", "0"]


@pytest.mark.parametrize(("pace_of", "change"), [(2.0, "slower"), (0.5, "faster"), (0.98, None)])
def test_the_budget_follows_the_speed_of_the_run_itself(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    pace_of: float,
    change: str | None,
) -> None:
    monkeypatch.setattr(pace, "training_left", lambda *_: 60 * MINUTES * pace_of)
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
    history = read_history(run)
    starts = history.records["start"]
    assert [start.get("budget_corrected", False) for start in starts] == [False, True]
    assert "<th>starts</th><td>1</td>" in report([history], "en")


def test_stopped_after_the_correction_and_resumed_equals_never_stopped(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "training_left", lambda *_: 60 * MINUTES * 1.5)
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


WINDOW, TEXT_TOKENS, HELD_OUT = 256, 1_700_000, 60_000
UPDATE = 1.5  # windows that take as long as an update of the demo's model


class Machine:
    """A run on a machine that trains nothing, by a clock of its own.

    The batch grows from 3 windows to 11, on which it takes 0.096 and 0.266 s, and the first pause
    is the longest: as `make demo` was measured.
    """

    def __init__(self, tokens: float, noise: float, update: float = UPDATE) -> None:
        self.now, self.noise, self.pauses, self.measured = 10.0, noise, 0, Pace()
        self.budgets: list[float] = []  # that it was corrected to, in tokens
        self.update, self.total = update, self.steps_of(tokens)

    def windows_before(self, step: int) -> int:
        early = min(step, 240)
        return 3 * early + early**2 // 60 + 11 * (step - early)

    def steps_of(self, tokens: float) -> int:
        return bisect.bisect_left(range(10**6), tokens / WINDOW, key=self.windows_before)

    def seconds_of(self, step: int) -> float:
        windows = self.windows_before(step + 1) - self.windows_before(step)
        drift = 1 + self.noise * math.sin(step / 40)
        return 0.0213 * (windows + UPDATE) * drift

    def state(self, step: int) -> Any:
        dataset = SimpleNamespace(validation=range(HELD_OUT), train=range(TEXT_TOKENS))
        plan = SimpleNamespace(
            total_steps=self.total, eval_interval=math.ceil(self.total / 10), eval_tokens=20_000
        )
        return SimpleNamespace(
            progress=SimpleNamespace(step=step),
            plan=plan,
            texts=SimpleNamespace(every=[SimpleNamespace(dataset=dataset)]),
            dataset=dataset,
            batches=SimpleNamespace(windows_before=self.windows_before, windows=1, main_windows=1),
            config=SimpleNamespace(
                data=SimpleNamespace(max_seq_len=WINDOW), run=SimpleNamespace(log_interval=10)
            ),
        )

    def run(self, limit: float) -> None:
        """Train until the budget is spent, as `pretrain.train` does."""
        measured, step, seconds = self.measured, 0, 0.0
        measured.start(0.0, 0, self.total, self.update)
        while step < self.total:
            seconds += self.seconds_of(step)
            self.now += self.seconds_of(step)
            step += 1
            state = self.state(step)
            if step % 10 == 0:
                measured.trained(self.windows_before(step), step, seconds)
                seconds = 0.0
            if step % state.plan.eval_interval == 0 or step == self.total:
                self.pauses += 1
                pause = 3.6 if self.pauses == 1 else 1.3
                self.now += pause
                measured.paused(pause)
            if step % 10 or step >= pace.LATEST_CHECK * self.total:
                continue
            if tokens := pace._fitting_tokens(state, measured, limit - self.now):
                self.budgets.append(tokens)
                self.now += 0.5  # a restart
                self.total = self.steps_of(tokens)
                measured.start(self.windows_before(step), step, self.total, self.update)
        self.now += 2.5  # all of the held-out text


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(
    ("tokens", "most"),
    [(1.9e6, 2), (2.1e6, 1), (2.5e6, 1), (1.2e6, 2), (0.6e6, 2), (4e6, 2), (20e6, 3)],
)
def test_a_run_ends_in_time_by_few_corrections_however_wrong_its_first_budget(
    tokens: float, most: int, noise: float
) -> None:
    machine = Machine(tokens, noise)
    machine.run(limit=240.0)
    assert 0.95 * 240 < machine.now < 240
    assert len(machine.budgets) <= most + (noise > 0)


@pytest.mark.parametrize(
    ("update", "step", "off"), [(UPDATE, 20, 0.01), (0.0, 170, 0.03), (3.0, 170, 0.03)]
)
def test_while_batches_are_small_the_time_left_is_that_of_the_whole_batches_to_come(
    update: float, step: int, off: float
) -> None:
    """From `step` on, later where an update does not cost what was expected."""
    machine, pace = Machine(2.1e6, 0.0), Pace()
    pace.start(0.0, 0, machine.total, update)
    for done in range(10, 320, 10):
        pace.trained(
            machine.windows_before(done), done, sum(map(machine.seconds_of, range(done - 10, done)))
        )
        left = sum(map(machine.seconds_of, range(done, machine.total)))
        windows = machine.windows_before(machine.total) - machine.windows_before(done)
        said = pace.seconds_of(windows, machine.total - done)
        assert done < step or said == pytest.approx(left, rel=off), done
