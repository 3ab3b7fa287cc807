"""Row 1: SIGKILL anywhere in training and saving; the whole, 200 points, is `make test-faults`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tiny import environment


def test_killed_at_any_write_sync_or_rename_it_resumes_to_the_same_bits() -> None:
    script = Path(__file__).with_name("kill_points.py")
    done = subprocess.run(
        [sys.executable, str(script), "--points", "20"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("killed", "resumed", "bit-equal"):
        assert re.search(rf"^{what} +20$", done.stdout, re.MULTILINE), done.stdout
