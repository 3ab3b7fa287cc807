"""Row 2: SIGTERM, SIGINT and SIGUSR1 save within a step and tell which; Ctrl-C twice ends at once.

That what is resumed equals a run never stopped: tests/training/test_resume.py; under torchrun:
tests/training/test_torchrun.py.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from forked import Forked
from jielong.checkpoint import checkpoint as ckpt
from jielong.cli.main import main
from jielong.training import pretrain
from jielong.training.state import TrainState
from jielong.training.step import TrainStep
from tiny import TINY_RUN, flags, forked, steps_trained


def started(folder: Path, corpus: Path, tokenizer: Path, **changes: Any) -> Forked:
    """A long run that has made its first steps, and would save by itself only at its end."""
    settings = TINY_RUN | {"steps": 1_000_000, "out_dir": folder, "data_path": corpus}
    settings |= {"tokenizer": tokenizer, "eval_interval": 1_000_000}
    process = forked("pretrain", *flags(settings | changes))
    deadline = time.monotonic() + 120
    while steps_trained(folder) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_the_step_it_came_in_and_the_exit_status_tells_which(
    number: signal.Signals, tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    process = started(tmp_path, corpus_file, tokenizer_dir)
    process.send_signal(number)
    said, problems = process.communicate(timeout=60)
    assert process.returncode == 128 + number, problems
    newest, passed_over = ckpt.latest_valid_checkpoint(tmp_path / "checkpoints")
    assert newest is not None and not passed_over
    records = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ckpt.step_of(newest) == records[-1]["step"]  # none was trained and not saved
    assert f"stopped after step {records[-1]['step']}" in said and "Traceback" not in problems


def test_a_second_ctrl_c_ends_at_once(
    tmp_path: Path,
    corpus_file: Path,
    tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reached: list[str] = []

    def endless_step(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        reached.append("the first only asks")
        signal.raise_signal(signal.SIGINT)
        reached.append("the second must not come back")

    monkeypatch.setattr(TrainStep, "__call__", endless_step)
    before = signal.getsignal(signal.SIGINT)  # ignored where a shell has started us beside it
    settings = TINY_RUN | {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    status = main(["pretrain", *flags(settings | {"out_dir": tmp_path})])
    assert status == 128 + signal.SIGINT and reached == ["the first only asks"]
    assert "interrupted" in capsys.readouterr().err
    assert not ckpt.checkpoints(tmp_path / "checkpoints")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_stops_a_run_whose_budget_is_just_corrected(
    tmp_path: Path,
    corpus_file: Path,
    tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[int] = []

    def corrects_once(state: TrainState, pace: object) -> bool:
        asked.append(state.progress.step)
        if len(asked) == 1:
            signal.raise_signal(signal.SIGTERM)
        return len(asked) == 1

    monkeypatch.setattr(pretrain, "corrects_budget", corrects_once)
    settings = TINY_RUN | {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    status = main(["pretrain", *flags(settings | {"out_dir": tmp_path})])
    assert status == 128 + signal.SIGTERM and asked == [1]
    assert "stopped after step 1;" in capsys.readouterr().out
