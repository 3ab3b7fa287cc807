"""A profile of some steps."""

from __future__ import annotations

import json
from pathlib import Path

from jielong.config.load import load_config
from jielong.training import memory
from tiny import TINY_RUN, flags, in_this_process


def test_a_run_writes_the_trace_and_the_slowest_operations_of_some_steps(
    corpus_file: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    settings = TINY_RUN | {"data_path": corpus_file, "tokenizer": tokenizer_dir, "profile": 2}
    settings |= {"out_dir": tmp_path / "run", "steps": 8}
    settings |= {"activation_checkpointing": "full"}
    status, said = in_this_process(["pretrain", *flags(settings)])
    assert status == 0 and "operations.txt" in said
    folder = tmp_path / "run" / "profile"
    table = (folder / "operations.txt").read_text()
    assert "aten::mm" in table and "_LinearCrossEntropy" in table
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    adamw = [e for e in events if e.get("name") == "aten::_fused_adamw_"]
    assert len(adamw) == 2 * 3  # steps, and AdamW's groups: matrices, vectors, shared spelling


def test_a_run_too_short_for_a_profile_says_so(
    corpus_file: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    settings = TINY_RUN | {"data_path": corpus_file, "tokenizer": tokenizer_dir, "profile": 2}
    settings |= {"out_dir": tmp_path / "run", "steps": 3, "validation_fraction": 0.0}
    status, said = in_this_process(["pretrain", *flags(settings)])
    assert status == 0 and "too short" in said and not (tmp_path / "run" / "profile").exists()


def test_layers_that_are_computed_again_keep_little() -> None:
    model = load_config(hidden_size=64, num_hidden_layers=8, vocab_size=288).model
    needs = [memory.least_bytes(model, 4, 512, 512, every) for every in (0, 2, 1)]
    assert needs == sorted(needs, reverse=True) and needs[2] < 0.5 * needs[0]
