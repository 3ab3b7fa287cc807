"""Runs that the page shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folders(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a run that has ended, with two checkpoints, and of a copy of it."""
    place = tmp_path_factory.mktemp("page")
    for name in ("first", "second"):
        shutil.copytree(trained_run, place / name)
    return [place / "first", place / "second"]
