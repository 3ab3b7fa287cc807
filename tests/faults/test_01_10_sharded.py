"""Rows 1 and 4 to 10 for checkpoints of which each process writes its part."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from faults.test_01_kill_in_save import table
from faults.test_04_disk_full import steps_saved
from faults.test_06_07_damaged_files import DAMAGE, assert_every_flip_is_found
from faults.test_08_09_hostile_files import Payload
from jielong.checkpoint import checkpoint as ckpt
from jielong.checkpoint.shards import INDEX, ShardedTensors
from jielong.errors import CheckpointError
from tiny import TINY_RUN, in_this_process
from training.test_distributed import python_in_ranks

SETTINGS = TINY_RUN | {"steps": 12, "eval_interval": 12, "save_interval": 4, "keep_checkpoints": 9}
SETTINGS |= {"checkpoint_format": "sharded"}
# The disk of rank 1 is full while it writes its part of the second checkpoint.
FULL = """
import json, os, sys
from faults.full_disk import full_at
from jielong.cli.main import main
from jielong.training import sharded_saving
if os.environ["RANK"] == "1":
    sharded_saving.write_shard = full_at(2, sharded_saving.write_shard)
sys.exit(main(json.loads(sys.argv[1])))
"""


def at(run: Path, step: int) -> Path:
    return run / "checkpoints" / ckpt.step_name(step)


def test_01_killed_at_any_write_sync_or_rename_ranks_resume_to_the_same_bits() -> None:
    got = table("--points", "4", "--ranks", "2")
    assert got["killed"] == got["resumed"] == got["bit-equal"] == "4"


@pytest.mark.parametrize("choice", ["stop", "continue"])
def test_04_05_a_disk_full_on_one_rank_is_told_by_rank_0_and_loses_no_checkpoint(
    choice: str, words: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [*words, "--out-dir", str(run), "--on-save-error", choice]
    (status, said), (other_status, other_said) = python_in_ranks(
        2, ["-c", FULL, json.dumps(command)]
    )
    assert "Traceback" not in said and other_said == ""
    told = f"{ckpt.step_name(8)}: cannot be written by rank 1: shard-00002-of-00002.safetensors"
    assert said.count(told) == 1
    trained = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in trained if record["kind"] == "train"]
    if choice == "stop":
        assert (status, other_status) == (2, 2) and steps_saved(run) == [4] and max(steps) <= 9
    else:
        assert (status, other_status) == (0, 0) and "training goes on" in said
        assert steps_saved(run) == [4, 12] and max(steps) == 12


def test_06_every_flipped_bit_is_found(whole: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / at(whole, 12).name
    shutil.copytree(at(whole, 12), checkpoint)
    assert_every_flip_is_found(checkpoint)


@pytest.mark.parametrize("damage", [*DAMAGE, "of another save"])
def test_07_a_shard_or_index_that_is_not_whole_is_found_and_the_one_before_taken(
    damage: str, whole: Path, words: list[str], tmp_path: Path
) -> None:
    shard = next(at(whole, 12).glob("shard-*")).name
    for name in (shard, INDEX):
        run = tmp_path / name
        shutil.copytree(whole, run)
        if damage != "of another save":
            DAMAGE[damage](at(run, 12) / name)
        elif name == INDEX:  # which is the same for all saves
            continue
        else:
            shutil.copy(at(run, 8) / name, at(run, 12) / name)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            ckpt.verify(at(run, 12))
    status, said = in_this_process([*words, "--out-dir", str(tmp_path / shard)])
    assert status == 0 and f"resuming from {at(tmp_path / shard, 8)}" in said
    assert (at(tmp_path / shard, 12) / shard).read_bytes() == (at(whole, 12) / shard).read_bytes()


@pytest.fixture
def unchecked(whole: Path, tmp_path: Path) -> Path:
    """A checkpoint without a manifest: there is nothing that it could be checked by."""
    folder = tmp_path / "model"
    shutil.copytree(at(whole, 12), folder)
    (folder / ckpt.MANIFEST).unlink()
    ckpt.load_model(folder)
    return folder


def test_07_without_a_manifest_a_missing_or_cut_shard_is_named(unchecked: Path) -> None:
    shard = next(unchecked.glob("shard-*"))
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=f"{shard.name}: damaged"):
        ckpt.load_model(unchecked)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name}: missing"):
        ckpt.load_model(unchecked)


def test_08_a_pickle_in_place_of_any_file_is_never_run(unchecked: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "it ran"
    shard = next(unchecked.glob("shard-*"))
    for name in (".metadata", shard.name, INDEX):
        torch.save(Payload(sentinel), tmp_path / "payload")
        shutil.copy(tmp_path / "payload", unchecked / name)
        if name != ".metadata":  # which nothing reads
            with pytest.raises(CheckpointError, match="damaged"):
                ckpt.load_model(unchecked)
    assert not sentinel.exists()


def altered(folder: Path, change: Any) -> None:
    """Changes the entry of a weight in the index."""
    record = json.loads((folder / INDEX).read_text())
    change(record["tensors"]["model.embed_tokens.weight"])
    (folder / INDEX).write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["../{}", "/tmp/{}", "a/{}", ".{}", "x.pt"])
def test_09_the_index_cannot_name_files_outside_the_folder(
    name: str, unchecked: Path, tmp_path: Path
) -> None:
    shard = next(unchecked.glob("shard-*")).name
    shutil.copy(unchecked / shard, tmp_path / shard)
    altered(unchecked, lambda entry: entry["pieces"][0].__setitem__(0, name.format(shard)))
    with pytest.raises(CheckpointError, match="not a valid name of a shard"):
        ckpt.load_model(unchecked)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["pieces"].clear(),
        lambda e: e["pieces"].append(e["pieces"][0]),
        lambda e: e["shape"].__setitem__(0, 10**12),
        lambda e: e["pieces"][0].__setitem__(2, -1),
        lambda e: e.__setitem__("shape", "many"),
        lambda e: e.__setitem__("dtype", "O"),
        lambda e: e.__setitem__("pieces", [[1, 2]]),
        lambda e: (e["shape"].__setitem__(0, 10**12), e["pieces"][0].__setitem__(2, 10**12)),
        lambda e: (e["shape"].__setitem__(0, 1), e["pieces"][0].__setitem__(2, 1)),
    ],
)
def test_09_an_index_at_odds_with_itself_or_its_shards_is_refused(
    change: Any, unchecked: Path
) -> None:
    altered(unchecked, change)
    with pytest.raises(CheckpointError):
        ckpt.load_model(unchecked)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"format": 1, "tensors": [1]}'])
def test_09_a_damaged_index_is_named(text: str, unchecked: Path) -> None:
    (unchecked / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=r"shards\.json: missing or damaged"):
        ckpt.load_model(unchecked)


def test_09_an_index_of_a_newer_version_says_so(unchecked: Path) -> None:
    record = json.loads((unchecked / INDEX).read_text())
    (unchecked / INDEX).write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(CheckpointError, match="update jielong"):
        ckpt.load_model(unchecked)


def test_10_weights_of_another_architecture_are_named(unchecked: Path) -> None:
    config = json.loads((unchecked / "config.json").read_text())
    (unchecked / "config.json").write_text(json.dumps(config | {"intermediate_size": 7}))
    with pytest.raises(CheckpointError, match=r"mlp\.\w+_proj\.weight has shape"):
        ckpt.load_model(unchecked)


def test_15_a_state_of_another_type_is_refused(
    whole: Path, words: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for step in (4, 12):
        shutil.rmtree(at(run, step))
    checkpoint = at(run, 8)
    shard = next(checkpoint.glob("shard-*"))
    name = next(iter(ShardedTensors(checkpoint).optimizer()))
    tensors = load_file(shard)
    save_file(tensors | {name: tensors[name].double()}, shard)
    record = json.loads((checkpoint / INDEX).read_text())
    record["tensors"][name]["dtype"] = "float64"
    (checkpoint / INDEX).write_text(json.dumps(record))
    (checkpoint / ckpt.MANIFEST).unlink()
    ckpt.write_manifest(checkpoint)
    status, said = in_this_process([*words, "--out-dir", str(run)])
    assert status == 2 and "torch.float64" in said and "Traceback" not in said, said


def test_a_model_that_does_not_fit_in_memory_is_refused_with_what_to_do(
    unchecked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jielong.checkpoint import opening

    monkeypatch.setattr(opening, "available_memory", lambda: 1000)
    with pytest.raises(CheckpointError, match="`jielong export`"):
        ckpt.load_model(unchecked)
