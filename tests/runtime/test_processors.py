"""What other programs use of the processors is told apart from what this one does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jielong.runtime import processors
from jielong.runtime.processors import OtherPrograms

COLUMNS = "{user} 0 0 {idle} 0 0 0 0 0 0"


def stat(file: Path, **user: float) -> None:
    """Write /proc/stat after 100 seconds: of each processor, the seconds in use."""
    tick = os.sysconf("SC_CLK_TCK")
    rows = [
        f"{name} " + COLUMNS.format(user=round(s * tick), idle=round((100 - s) * tick))
        for name, s in user.items()
    ]
    file.write_text("\n".join(["cpu 1 2 3 4", *rows, "intr 12"]) + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two processors, idle so far; a third is not for this process."""
    file = tmp_path / "stat"
    monkeypatch.setattr(processors, "STAT", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    return file


@pytest.mark.parametrize(("processes", "expected"), [(1, 0.45), (2, 0.25)])
def test_own_time_and_processors_of_others_are_left_out(
    machine: Path, monkeypatch: pytest.MonkeyPatch, processes: int, expected: float
) -> None:
    spent = [10.0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(os, "times", lambda: os.times_result((spent[0], 0, 0, 0, 0)))
    machine.write_text("cpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n")
    others = OtherPrograms()
    spent[0] += 40
    stat(machine, cpu0=100, cpu1=30, cpu2=77)
    assert others.share() == pytest.approx(expected)
    assert others.share() is None  # no time has passed


def test_where_nothing_is_known_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processors, "STAT", tmp_path / "missing")
    assert OtherPrograms().share() is None


def test_this_machine_has_a_share_or_says_that_it_is_not_known() -> None:
    others = OtherPrograms()
    sum(range(3_000_000))
    share = others.share()
    assert share is None or 0 <= share <= 1
