"""Trackers: what reaches them, in one run through all resumes, and that none stops training."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import step_name
from jielong.cli import main
from tiny import TINY_RUN, flags

STEPS = 8
# a package of the tracker's interface, that writes down its calls and breaks where it is told to
FAKE_WANDB = """
import json, pathlib
calls = pathlib.Path(__file__).with_name("calls.jsonl")

def note(what, **values):
    with calls.open("a") as file:
        file.write(json.dumps({"what": what, **values}, default=str) + "\\n")
    if what == BREAKS_IN:
        raise RuntimeError(f"no network in {what}\\nand more of it")

class Run:
    def log(self, data, step=None):
        note("log", data=data, step=step)
    def finish(self):
        note("finish")

def init(**values):
    note("init", **values)
    return Run()
"""

Calls = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def fake_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Calls]]:
    """Makes a package `wandb` that breaks in a function of that name; returns its calls."""

    def make(breaks_in: str = "") -> Calls:
        package = tmp_path / "packages" / "wandb"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"BREAKS_IN = {breaks_in!r}\n{FAKE_WANDB}")
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        monkeypatch.syspath_prepend(str(package.parent))
        calls = package / "calls.jsonl"
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    yield make
    sys.modules.pop("wandb", None)


@pytest.fixture
def words(tmp_path: Path, corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {
        "steps": STEPS,
        "eval_interval": 4,
        "data_path": str(corpus_file),
        "tokenizer": str(tokenizer_dir),
        "out_dir": str(tmp_path / "run"),
    }
    return ["pretrain", *flags(settings)]


def records(folder: Path, kind: str = "train") -> dict[int, dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {r["step"]: r for r in map(json.loads, lines) if r["kind"] == kind}


def test_wandb_gets_settings_and_numbers_in_one_run_through_a_resume(
    tmp_path: Path, words: list[str], fake_wandb: Callable[..., Calls]
) -> None:
    calls, run = fake_wandb(), tmp_path / "run"
    words += ["--use_wandb", "--wandb_project", "mine"]
    assert main(words) == 0
    shutil.rmtree(run / "checkpoints" / step_name(STEPS))
    first = calls()
    assert main(words) == 0
    again = calls()[len(first) :]
    for part in (first, again):
        assert [call["what"] for call in part].count("init") == 1
        assert part[0]["what"] == "init" and part[-1]["what"] == "finish"
        assert (part[0]["project"], part[0]["name"], part[0]["resume"]) == ("mine", "run", "allow")
        assert part[0]["config"]["hidden_size"] == TINY_RUN["hidden_size"]
    assert first[0]["id"] == again[0]["id"]
    for part, steps in ((first, range(1, STEPS + 1)), (again, range(5, STEPS + 1))):
        losses = {c["step"]: c["data"]["train/loss"] for c in part if "train/loss" in str(c)}
        assert losses == {step: records(run)[step]["loss"] for step in steps}
    held_out = records(run, "validation")[STEPS]["bits_per_byte"]
    assert held_out in [call.get("data", {}).get("validation/bits_per_byte") for call in again]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_fails_never_stops_training(
    where: str,
    tmp_path: Path,
    words: list[str],
    fake_wandb: Callable[..., Calls],
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = fake_wandb(where)
    assert main([*words, "--tracker", "wandb"]) == 0
    said = capsys.readouterr()
    assert said.out.count(f"wandb failed and is off from here (no network in {where})") == 1
    assert "Traceback" not in said.out + said.err
    assert list(records(tmp_path / "run")) == list(range(1, STEPS + 1))
    assert [call["what"] for call in calls()].count(where) == 1  # it is left alone after that


def test_a_tracker_that_is_not_installed_is_an_error_before_anything_is_prepared(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flag in (["--use_wandb"], ["--use_wandb", "true"], ["--tracker", "wandb"]):
        monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not there
        assert main([*words, *flag]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: run.tracker=wandb") and said.err.count("\n") == 1
        assert "pip install wandb" in said.err
        assert not (tmp_path / "run").exists()
    assert main([*words, "--use_wandb", "false"]) == 0


def test_tensorboard_shows_the_numbers_of_metrics_jsonl(tmp_path: Path, words: list[str]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([*words, "--tracker", "tensorboard"]) == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name in ("loss", "grad_norm", "learning_rate"):
        shown = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert shown == pytest.approx(
            {step: record[name] for step, record in records(tmp_path / "run").items()}, rel=1e-6
        )
    assert {event.step for event in events.Scalars("validation/loss")} == {4, STEPS}
