"""Two processes train what one does; and a run moves between the two."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forked import Forked
from jielong.cli.main import main
from jielong.data.shards import open_dataset
from tiny import REGULARISED, TINY_RUN, environment, flags

STEPS = 13
CHANGES = {
    "steps": STEPS,
    "batch_size": 2,
    "accumulation_steps": 5,
    "eval_interval": 4,
    "keep_checkpoints": 9,
    "optimizer": "adamw",
    # sums in another order differ in their last bits; Adam divides small gradients by themselves,
    # which would turn a bit that differs into a step that does
    "adam_eps": 1e-3,
    "learning_rate": 1e-3,  # nor does a small step make differences grow
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def in_ranks(world_size: int, words: list[str], timeout: float = 600) -> list[tuple[int, str]]:
    """Runs `jielong` in ranks, as `python_in_ranks`."""
    return python_in_ranks(world_size, ["-m", "jielong", *words], timeout)


def python_in_ranks(
    world_size: int, words: list[str], timeout: float = 600
) -> list[tuple[int, str]]:
    """Runs Python as torchrun would, once for each rank: exit statuses and what was said."""
    processes = start_ranks(world_size, words)
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, s) for p, s in zip(processes, said, strict=True)]


def start_ranks(world_size: int, words: list[str]) -> list[Forked]:
    """Starts Python as torchrun would, once for each rank."""
    port = str(free_port())
    return [
        Forked(
            words,
            environment(
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                WORLD_SIZE=str(world_size),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            ),
            merged=True,
        )
        for rank in range(world_size)
    ]


def words_of(settings: dict[str, Any]) -> list[str]:
    return ["pretrain", *flags(TINY_RUN | CHANGES | settings)]


def records(folder: Path, kind: str) -> dict[int, dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {r["step"]: r for r in map(json.loads, lines) if r["kind"] == kind}


@pytest.mark.parametrize("packing", ["pack", "pad"])
def test_two_processes_train_what_one_does(
    packing: str, tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    shared = {
        "data_path": str(corpus_file),
        "tokenizer": str(tokenizer_dir),
        "packing": packing,
        "validation_fraction": 0.15,
        "teachers": int(packing == "pad"),
        **REGULARISED,
    }
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(words_of(shared | {"out_dir": str(one)})) == 0
    for status, said in in_ranks(2, words_of(shared | {"out_dir": str(two)})):
        assert status == 0, said
    if packing == "pack":
        windows = -(-(len(open_dataset(one / "data").train) - 1) // TINY_RUN["max_seq_len"])
        assert windows % 2 == 1 and windows < STEPS * 10  # a rank was once left without a window
    expected, got = records(one, "train"), records(two, "train")
    assert got.keys() == expected.keys() == set(range(1, STEPS + 1))
    for step, record in expected.items():
        assert got[step]["loss"] == pytest.approx(record["loss"], abs=1e-5)
        assert got[step]["tokens"] == record["tokens"]
        assert got[step]["grad_norm"] == pytest.approx(record["grad_norm"], rel=1e-3)
    for step, record in records(one, "validation").items():
        other = records(two, "validation")[step]
        assert other["loss"] == pytest.approx(record["loss"], abs=1e-5)
        assert (other["tokens"], other["bytes"]) == (record["tokens"], record["bytes"])
    last = f"checkpoints/step-{STEPS:08d}/model.safetensors"
    weights, others = load_file(one / last), load_file(two / last)
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=1e-4)
    if packing == "pack":
        # the run of two goes on with one, and is where it would have been
        for step in range(5, STEPS + 1):
            shutil.rmtree(two / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
        assert main(words_of(shared | {"out_dir": str(two)})) == 0
        for step, record in records(two, "train").items():
            assert record["loss"] == pytest.approx(expected[step]["loss"], abs=1e-5)
