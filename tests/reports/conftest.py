"""One tiny run for all tests of reports, of texts that try to be markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny import TEXTS, TINY_RUN, flags, in_this_process

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Path:
    """A finished run of 24 steps in a folder whose name is markup too; tests do not change it."""
    folder = tmp_path_factory.mktemp("reports")
    corpus = folder / "<img src=x onerror=alert(1)>.jsonl"
    lines = [json.dumps({"text": f"{text} {EVIL}"}) for text in TEXTS]
    corpus.write_text("\n".join(lines))
    settings = TINY_RUN | {
        "data_path": corpus,
        "tokenizer": tokenizer_dir,
        "out_dir": folder / "<script>",
        "sample_tokens": 8,
        "report": True,
        "sample_prompts": (EVIL, "Tale"),
    }
    status, said = in_this_process(["pretrain", *flags(settings)])
    assert status == 0, said
    return folder / "<script>"
