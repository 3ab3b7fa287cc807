"""How threads wait for each other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tiny import environment


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_threads_spin_shortly_unless_the_user_has_said_how_they_wait(
    given: dict[str, str], expected: str | None
) -> None:
    say = "import os, jielong; print(os.environ.get('GOMP_SPINCOUNT'))"
    named = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    env = {k: v for k, v in environment().items() if k not in named} | given
    found = subprocess.run([sys.executable, "-c", say], env=env, capture_output=True, text=True)
    assert found.stdout.strip() == str(expected), found.stderr
