"""Row 5: checkpoints are written in a thread while training goes on, and what fails there is told.

SIGKILL within it: test_01_kill_in_save.py, whose runs save so.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from faults.test_04_disk_full import steps_saved
from jielong.checkpoint import checkpoint as ckpt
from jielong.checkpoint.weights import load_tensors
from jielong.errors import CheckpointError
from jielong.training import background
from jielong.training.background import BackgroundSave
from jielong.training.step import TrainStep
from tiny import TINY_RUN, flags, in_this_process
from training.test_distributed import python_in_ranks

STEPS = 12
# The second checkpoint cannot be written: its thread finds out.
CHILD = """
import json, sys
from jielong.checkpoint import checkpoint as ckpt
from jielong.cli.main import main
from jielong.errors import CheckpointError
saves, save = [], ckpt.save_checkpoint

def failing(*arguments):
    saves.append(1)
    if len(saves) == 2:
        raise CheckpointError("step-8: cannot be written: the disk is gone")
    return save(*arguments)

ckpt.save_checkpoint = failing
sys.exit(main(json.loads(sys.argv[1])))
"""


@pytest.fixture
def words(corpus_file: Path, tokenizer_dir: Path, tmp_path: Path) -> list[str]:
    settings: dict[str, Any] = {"steps": STEPS, "eval_interval": 12, "save_interval": 4}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir, "keep_checkpoints": 9}
    return ["pretrain", *flags(TINY_RUN | settings | {"out_dir": tmp_path / "run"})]


@pytest.mark.parametrize("choice", ["stop", "continue"])
def test_what_fails_in_the_thread_stops_all_ranks_by_the_next_step_or_is_told(
    choice: str, words: list[str], tmp_path: Path
) -> None:
    arguments = json.dumps([*words, "--on-save-error", choice])
    results = python_in_ranks(2, ["-c", CHILD, arguments])
    statuses, said = zip(*results, strict=True)
    records = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = max(r["step"] for r in records if r["kind"] == "train")
    assert said[0].count("the disk is gone") == 1 and "Traceback" not in said[0] + said[1]
    assert not said[1]
    if choice == "stop":
        assert statuses == (2, 2) and trained <= 9 and steps_saved(tmp_path / "run") == [4]
    else:
        assert statuses == (0, 0) and "training goes on" in said[0]
        assert trained == STEPS and steps_saved(tmp_path / "run") == [4, 12]


def test_training_goes_on_while_a_checkpoint_is_written_and_never_two_at_once(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, step, steps = ckpt.save_checkpoint, TrainStep.__call__, 0
    writing, most, trained_meanwhile = 0, 0, threading.Event()

    def slow_save(*arguments: Any) -> Path:
        nonlocal writing, most
        writing += 1
        most = max(most, writing)
        if steps < STEPS:
            trained_meanwhile.clear()
            assert trained_meanwhile.wait(60), "no step was taken meanwhile"
        made = save(*arguments)
        writing -= 1
        return made

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal steps
        result = step(*arguments, **options)
        steps += 1
        trained_meanwhile.set()
        return result

    monkeypatch.setattr(ckpt, "save_checkpoint", slow_save)
    monkeypatch.setattr(TrainStep, "__call__", counted)
    status, said = in_this_process(words)
    assert status == 0, said
    assert steps_saved(tmp_path / "run") == [4, 8, 12] and most == 1


@pytest.mark.parametrize("room", [True, False])
def test_what_is_written_is_the_state_of_the_step_as_without_a_thread(
    room: bool, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_this_process([*words, "--background-saves", "false"])[0] == 0
    (tmp_path / "run").rename(tmp_path / "at once")
    if not room:  # no copy fits: the checkpoint is written before training goes on
        monkeypatch.setattr(background, "available_memory", lambda: 0)
        monkeypatch.setattr(background.HostCopy, "of", None)
    assert in_this_process(words)[0] == 0
    for step in steps_saved(tmp_path / "run"):
        folders = [
            tmp_path / name / "checkpoints" / ckpt.step_name(step) for name in ("run", "at once")
        ]
        for file in ("model", "optimizer", "training_weights"):
            got, expected = (load_tensors(folder / f"{file}.safetensors") for folder in folders)
            assert got.keys() == expected.keys()
            assert all(got[name].equal(expected[name]) for name in got), (step, file)
        got, expected = (ckpt.load_training_state(folder).values for folder in folders)
        for values in (got, expected):
            del values["config"]  # says how it was saved
            for name in ("validation", "best_validation"):
                (values["progress"][name] or {}).pop("seconds", None)
        assert got == expected


def test_sigterm_waits_for_the_checkpoint_that_is_being_written(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, step, asked = ckpt.save_checkpoint, TrainStep.__call__, threading.Event()

    def slow_save(*arguments: Any) -> Path:
        assert asked.wait(60)
        return save(*arguments)

    def counted(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        if (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b'"train"') == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            asked.set()
        return result

    monkeypatch.setattr(ckpt, "save_checkpoint", slow_save)
    monkeypatch.setattr(TrainStep, "__call__", counted)
    status, said = in_this_process(words)
    assert status == 128 + signal.SIGTERM, said
    assert steps_saved(tmp_path / "run") == [4, 6] and "stopped after step 6" in said


def test_an_error_waits_until_it_is_asked_for_and_is_told_once() -> None:
    saves, order = BackgroundSave(), []

    def fails() -> None:
        raise CheckpointError("no room")

    for task in (lambda: order.append(1), fails, lambda: order.append(2)):
        saves.run(task)
    saves.rest()
    assert order == [1, 2] and saves.failed
    with pytest.raises(CheckpointError, match="no room"):
        saves.wait()
    saves.wait()
    assert not saves.failed
