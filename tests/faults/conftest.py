"""A run by the SETTINGS of a module of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import flags, in_this_process


@pytest.fixture(scope="module")
def words(request: pytest.FixtureRequest, corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    """The command of the run, without a folder for it."""
    texts = {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    return ["pretrain", *flags(request.module.SETTINGS | texts)]


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run, which has ended."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    status, said = in_this_process([*words, "--out-dir", str(folder)])
    assert status == 0, said
    return folder
