"""Rows 29 to 31: a rank, or what reads its batches, hangs or fails: all end, and one says why.

Restarts: tests/training/test_torchrun.py.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from jielong.checkpoint import checkpoint as ckpt
from tiny import TINY_RUN, flags, rank_timeout, steps_trained, until
from training.test_distributed import python_in_ranks, start_ranks

# What happens to one rank before its sixth step, or as its batch of that step is read.
CHILD = """
import ctypes, json, os, signal, sys, time
from jielong.cli.main import main
from jielong.data.batches import Batches
from jielong.training.step import TrainStep
kind, rank, words = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
real_step, real_batch, seen = TrainStep.__call__, Batches.batch, []

def happens():
    if kind == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "sleeps" or kind == "reads":
        time.sleep(1000)
    elif kind == "keeps the interpreter":
        ctypes.PyDLL(None).sleep(1000)
    elif kind == "leaves":
        os._exit(7)
    elif kind == "crashes":
        ctypes.string_at(0)
    elif kind == "fails":
        raise RuntimeError("something odd")
    elif kind == "is told to stop":
        signal.raise_signal(signal.SIGTERM)

def step(*arguments, **options):
    seen.append(1)
    if len(seen) == 6 and kind != "reads":
        happens()
    return real_step(*arguments, **options)

def batch(self, step, *rest):
    if step == 5 and kind == "reads":
        happens()
    return real_batch(self, step, *rest)

if os.environ["RANK"] == rank:
    TrainStep.__call__, Batches.batch = step, batch
sys.exit(main(words))
"""


@pytest.fixture
def settings(corpus_file: Path, tokenizer_dir: Path, tmp_path: Path) -> dict[str, object]:
    changes = {
        "steps": 12,
        "eval_interval": 4,
        "out_dir": tmp_path / "run",
        "rank_timeout": rank_timeout(),
        "background_saves": False,  # a rank that leaves at once may leave before its writing ends
    }
    return TINY_RUN | changes | {"data_path": corpus_file, "tokenizer": tokenizer_dir}


def on_two_ranks(kind: str, rank: int, settings: dict[str, object]) -> list[str]:
    words = json.dumps(["pretrain", *flags(settings)])
    return ["-c", CHILD, kind, str(rank), words]


def assert_the_run_is_sound(folder: object, told: bool = True) -> None:
    newest, problems = ckpt.latest_valid_checkpoint(Path(str(folder)) / "checkpoints")
    assert newest is not None and ckpt.step_of(newest) == 4 and not problems
    records = (Path(str(folder)) / "metrics.jsonl").read_text().splitlines()
    ended = json.loads(records[-1])
    if told:
        assert (ended["kind"], ended["state"]) == ("end", "failed") and ended["why"]


@pytest.mark.parametrize(
    ("kind", "rank", "where"),
    [("sleeps", 0, "step 6"), ("reads", 1, "reading a batch")],
)
def test_a_rank_that_hangs_is_named_with_its_stack_and_all_end(
    kind: str, rank: int, where: str, settings: dict[str, object]
) -> None:
    settings["num_workers"] = 1 if kind == "reads" else 0
    results = python_in_ranks(2, on_two_ranks(kind, rank, settings))
    assert [status for status, _ in results] == [2, 2], results
    hung, other = results[rank][1], results[1 - rank][1]
    assert (
        f"error: rank {rank} (process " in hung
        and f"{settings['rank_timeout']} s in {where} without progress" in hung
    )
    assert "in happens" in hung and "--rank-timeout" in hung
    assert "error" not in other and "Traceback" not in other and "in happens" not in other
    assert_the_run_is_sound(settings["out_dir"])


@pytest.mark.parametrize("kind", ["stops", "keeps the interpreter"])
def test_a_rank_that_says_nothing_is_named_by_another(
    kind: str, settings: dict[str, object]
) -> None:
    processes = start_ranks(2, on_two_ranks(kind, 1, settings))
    try:
        said = processes[0].communicate(timeout=600)[0]
        assert processes[0].returncode == 2
        assert f"error: rank 1 (process {processes[1].pid} on " in said
        assert f"has said nothing for {settings['rank_timeout']} s: its process is " in said
        assert ("is stopped" in said) == (kind == "stops") and "Traceback" not in said
        assert_the_run_is_sound(settings["out_dir"])
    finally:
        for process in processes:
            process.kill()
        stack = processes[1].communicate()[0]
    assert ("in happens" in stack) == (kind != "stops")  # written by a thread that needs no Python


@pytest.mark.parametrize(("kind", "rank"), [("leaves", 0), ("crashes", 1)])
def test_a_rank_that_dies_without_a_word_is_named_and_nothing_else_is_said(
    kind: str, rank: int, settings: dict[str, object]
) -> None:
    results = python_in_ranks(2, on_two_ranks(kind, rank, settings))
    status, said = results[1 - rank]
    assert status == 2 and results[rank][0] not in (0, 2)
    assert said.count("error: ") == 1 and f"error: rank {rank} (process " in said
    assert "ended" in said and "Traceback" not in said
    assert_the_run_is_sound(settings["out_dir"], told=rank != 0)


def test_an_error_of_one_rank_is_told_by_it_alone(settings: dict[str, object]) -> None:
    rank = 0  # where the ranks ask who failed
    results = python_in_ranks(2, on_two_ranks("fails", rank, settings))
    assert results[rank][0] == 1 and results[1 - rank][0] == 2
    assert "RuntimeError: something odd" in results[rank][1]
    assert results[rank][1].count("Traceback") == 1
    other = results[1 - rank][1]
    assert "Traceback" not in other and "error" not in other and "gloo" not in other
    assert_the_run_is_sound(settings["out_dir"])


def test_a_signal_to_one_rank_stops_all_as_if_they_had_received_it(
    settings: dict[str, object],
) -> None:
    results = python_in_ranks(2, on_two_ranks("is told to stop", 1, settings))
    assert [status for status, _ in results] == [143, 143], results
    newest, problems = ckpt.latest_valid_checkpoint(Path(str(settings["out_dir"])) / "checkpoints")
    assert newest is not None and ckpt.step_of(newest) == 6 and not problems


def test_a_run_that_is_stopped_as_a_whole_goes_on_when_it_is_let(
    settings: dict[str, object],
) -> None:
    settings |= {"steps": 3000, "eval_interval": 3000, "log_interval": 1}
    processes = start_ranks(2, ["-m", "jielong", "pretrain", *flags(settings)])
    run = Path(str(settings["out_dir"]))

    def ended() -> bool:
        return any(process.poll() is not None for process in processes)

    try:
        assert until(lambda: steps_trained(run) > 5 or ended()) and not ended()
        for process in processes:
            os.kill(process.pid, signal.SIGSTOP)
        before = steps_trained(run)
        time.sleep(1.5 * float(str(settings["rank_timeout"])))
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)
        assert until(lambda: steps_trained(run) >= before + 50 or ended()) and not ended()
        processes[0].terminate()  # which stops the other too, whenever a busy machine comes to it
        said = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [143, 143], said
