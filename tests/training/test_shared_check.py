"""Ranks that go on from a checkpoint share the reading of its files, and agree on what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

from jielong.checkpoint.checkpoint import step_name
from jielong.checkpoint.manifest import write_manifest
from training.test_distributed import python_in_ranks

# Each rank prints what it hashed, and what was found.
LOOK = """
import json, os, sys
from pathlib import Path
from jielong.checkpoint import manifest
from jielong.config.load import load_config
from jielong.errors import AnotherRankError, CheckpointError
from jielong.runtime.distributed import init_world
from jielong.runtime.run_folder import RunFolder
from jielong.training.starting_point import find_starting_point
hashed, real = [], manifest.sha256
manifest.sha256 = lambda path: hashed.append(path.parent.name + "/" + path.name) or real(path)
with init_world("cpu", 300.0) as world:
    try:
        start = find_starting_point(load_config(), RunFolder(sys.argv[1 + world.rank]), world)
        found = start.checkpoint and start.checkpoint.name, start.problems
    except (AnotherRankError, CheckpointError) as error:
        found = type(error).__name__, str(error)
    print(json.dumps([hashed, found]))
"""
FILES = {f"shard-{n}": bytes(1000 * n) for n in range(1, 6)} | {"config.json": b"{}"}


def run_with(folder: Path, steps: list[int]) -> Path:
    for step in steps:
        checkpoint = folder / "checkpoints" / step_name(step)
        checkpoint.mkdir(parents=True)
        for name, content in FILES.items():
            (checkpoint / name).write_bytes(content)
        write_manifest(checkpoint)
    return folder


def looked(*runs: Path) -> list[list[object]]:
    found = python_in_ranks(2, ["-c", LOOK, *map(str, runs)])
    assert [status for status, _ in found] == [0, 0], found
    return [json.loads(said) for _, said in found]


def test_each_file_is_read_by_one_rank_and_all_learn_what_is_wrong(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", [2, 4, 6])
    newest, middle = (run / "checkpoints" / step_name(step) for step in (6, 4))
    (newest / "shard-3").write_bytes(bytes(2999) + b"1")
    (middle / "more").write_bytes(b"")
    (ours, found), (theirs, same) = looked(run, run)
    names = {f"{step_name(step)}/{name}" for step in (6, 2) for name in FILES}
    assert set(ours) | set(theirs) <= names and not set(ours) & set(theirs)
    whole = {f"{step_name(2)}/{name}" for name in FILES}
    assert (set(ours) | set(theirs)) & whole == whole
    assert len(set(ours) & whole) == len(set(theirs) & whole) == 3
    assert found == same and found[0] == step_name(2)
    (damaged, odd) = found[1]
    assert damaged.startswith(f"{newest / 'shard-3'}: damaged")
    assert odd.startswith(f"{middle}: more is missing or does not belong here")


def test_a_rank_that_does_not_see_the_checkpoints_says_so_and_none_is_passed_over(
    tmp_path: Path,
) -> None:
    run = run_with(tmp_path / "run", [2])
    (_, other), (_, told) = looked(run, tmp_path / "elsewhere")
    assert other[0] == "AnotherRankError" and told[0] == "CheckpointError"
    assert (
        "rank 0 sees it, and rank 1 does not: all must have --out-dir on the same disk" in told[1]
    )
