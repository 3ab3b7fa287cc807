"""A run's memory and open files stay flat; `make test-faults` has the 2,000 steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.health import is_healthy, measure


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_and_open_files_do_not_grow_with_the_steps(tmp_path: Path) -> None:
    result = measure(400, tmp_path)
    assert is_healthy(result, bytes_a_step=16 * 1024), result
