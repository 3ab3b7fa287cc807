"""Rows 1 and 3: SIGKILL anywhere in training and saving; `make test-faults` has 200 points."""

from __future__ import annotations

from forked import Forked
from tiny import environment


def table(*words: str) -> dict[str, str]:
    """What kill_points.py prints."""
    process = Forked(["-m", "faults.kill_points", *words], environment())
    said, errors = process.communicate()
    assert process.returncode == 0, said + errors
    return {line[:40].strip(): line[41:] for line in said.splitlines()}


def test_killed_at_any_write_sync_or_rename_it_resumes_to_the_same_bits() -> None:
    got = table("--points", "20")
    assert got["killed"] == got["resumed"] == got["bit-equal"] == "20"


def test_03_killed_while_it_saves_after_sigterm_it_resumes_to_the_same_bits() -> None:
    got = table("--points", "9", "--grace")
    assert int(got["killed"]) >= 5  # others had saved and ended by then
    assert got["resumed"] == got["bit-equal"] == "9"
