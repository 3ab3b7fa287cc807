"""A tiny run, long enough to learn its text, for all tests of suites."""

from __future__ import annotations

from pathlib import Path

import pytest

import jielong
from jielong.evaluation.suites.subject import Subject
from jielong.training.suites import open_subject
from tiny import TINY_RUN

STEPS = 120


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("suites") / "run"
    settings = TINY_RUN | {"steps": STEPS, "max_seq_len": 64, "eval_interval": STEPS // 2}
    settings |= {"validation_fraction": 0.3}
    places = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    jielong.pretrain(settings | places | {"out_dir": str(folder)}, quiet=True)
    return folder


@pytest.fixture
def subject(run: Path) -> Subject:
    return open_subject(run / "checkpoints" / f"step-{STEPS:08d}", "cpu", 1024)
