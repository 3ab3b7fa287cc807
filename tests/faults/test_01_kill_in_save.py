"""Rows 1 and 3: SIGKILL anywhere in training and saving; `make test-faults` has 200 points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tiny import environment


def table(*words: str) -> dict[str, str]:
    """What kill_points.py prints."""
    script = Path(__file__).with_name("kill_points.py")
    done = subprocess.run(
        [sys.executable, str(script), *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {line[:40].strip(): line[41:] for line in done.stdout.splitlines()}


def test_killed_at_any_write_sync_or_rename_it_resumes_to_the_same_bits() -> None:
    got = table("--points", "20")
    assert got["killed"] == got["resumed"] == got["bit-equal"] == "20"


def test_03_killed_while_it_saves_after_sigterm_it_resumes_to_the_same_bits() -> None:
    got = table("--points", "9", "--grace")
    assert int(got["killed"]) >= 5  # others had saved and ended by then
    assert got["resumed"] == got["bit-equal"] == "9"
