"""Runs on a remote dataset have the bits of those on the same dataset here, whatever fails."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Served, impatient
from sharded import serve, shards_asked

from jielong.api import inspect_data, plan
from jielong.checkpoint import checkpoint as ckpt
from jielong.data import cache_room, remote_dataset, shard_cache
from jielong.data.cache_room import Room
from jielong.data.remote_dataset import find_remote_dataset
from tiny import (
    TINY_RUN,
    environment,
    flags,
    forked,
    in_this_process,
    kill_when,
    steps_trained,
)

STEPS = TINY_RUN["steps"]
# without bigrams, for which the start of a text is read before a run begins
IN_BLOCKS = {"shuffle_shards": 3, "bigram_share": 0.0}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    impatient(monkeypatch, contact_s=0.2, patience_s=0.4)
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_cache, "IDLE_S", 0.01)


def words(data: str | Path, out: Path, **changes: Any) -> list[str]:
    return ["pretrain", *flags(TINY_RUN | {"data_path": str(data), "out_dir": str(out)} | changes)]


def train(data: str | Path, out: Path, **changes: Any) -> str:
    status, said = in_this_process(words(data, out, **changes))
    assert status == 0, said
    return said


def losses(run: Path) -> list[tuple[int, float, float]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(r["step"], r["loss"], r["grad_norm"]) for r in records if r["kind"] == "train"]


def assert_equal(run: Path, other: Path, steps: int = STEPS) -> None:
    for file in ("model.safetensors", ckpt.TRAINING_WEIGHTS, "optimizer.safetensors"):
        ours, theirs = (r / "checkpoints" / ckpt.step_name(steps) / file for r in (run, other))
        assert ours.read_bytes() == theirs.read_bytes(), file
    assert losses(run) == losses(other)


@pytest.fixture(scope="module")
def whole(many_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the dataset here."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(many_shards, run)
    return run


@pytest.fixture(scope="module")
def in_blocks(many_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with windows shuffled within blocks of shards."""
    run = tmp_path_factory.mktemp("runs") / "blocks"
    train(many_shards, run, **IN_BLOCKS)
    return run


def size_of(folder: Path, pattern: str = "*.bin") -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def room_for(folder: Path, shards: int) -> float:
    """GB of what is always needed of a dataset and of so many shards."""
    fixed = size_of(folder) - size_of(folder, "train-*.bin")
    return (fixed + shards * (folder / "train-00000.bin").stat().st_size) / 1e9


def test_a_run_on_a_remote_dataset_has_the_bits_of_one_here(
    many_shards: Path, whole: Path, web: Served, tmp_path: Path
) -> None:
    said = train(serve(web, many_shards), tmp_path / "run")
    assert_equal(tmp_path / "run", whole)
    count = len(json.loads((many_shards / "dataset.json").read_text())["files"])
    assert f"shards     {web.address}/set: {count} files, " in said
    assert f"shards     {count} files are fetched first" in said
    assert len(shards_asked(web)) == len(set(shards_asked(web)))
    asked = len(shards_asked(web))
    train(serve(web, many_shards), tmp_path / "again")
    assert_equal(tmp_path / "again", whole)
    assert len(shards_asked(web)) == asked
    web.files, before = {"/set/dataset.json": web.files["/set/dataset.json"]}, web.files
    shutil.rmtree(tmp_path / "cache")
    web.files |= {path: data for path, data in before.items() if "train-" not in path}
    assert "this run is complete" in train(f"{web.address}/set", tmp_path / "run")


def test_in_blocks_a_cache_smaller_than_the_dataset_gives_the_same_bits(
    many_shards: Path,
    in_blocks: Path,
    web: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit, most = room_for(many_shards, 6), list[int]()
    take = Room.take

    def watched(room: Room, *arguments: Any) -> bool:
        taken = take(room, *arguments)
        most.append(sum(size for _, size, _ in cache_room._files(room.root)))
        return taken

    monkeypatch.setattr(Room, "take", watched)
    train(serve(web, many_shards), tmp_path / "run", **IN_BLOCKS, cache_gb=limit)
    assert_equal(tmp_path / "run", in_blocks)
    assert max(most) <= limit * 1e9 < size_of(many_shards)
    assert len(shards_asked(web)) > len(set(shards_asked(web)))  # anew in the second epoch


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_drops_throttles_and_damages_changes_no_bit(
    seed: int, many_shards: Path, in_blocks: Path, web: Served, tmp_path: Path
) -> None:
    address, faults = serve(web, many_shards), ("503", "none", "drop 0", "429", "drop 33", "500")
    for number, path in enumerate(sorted(web.files)):
        web.faults[path] = [faults[(number + seed * i) % 6] for i in range(4)]
        web.damaged[path] = int(number % 3 == seed and "train" in path)
    train(address, tmp_path / "run", **IN_BLOCKS, cache_gb=room_for(many_shards, 7))
    assert_equal(tmp_path / "run", in_blocks)


def test_an_outage_ends_a_run_which_then_goes_on_to_the_same_bits(
    many_shards: Path, in_blocks: Path, web: Served, tmp_path: Path
) -> None:
    address, run = serve(web, many_shards), tmp_path / "run"
    shard, cache_gb = last_shard_read(many_shards, tmp_path), room_for(many_shards, 6)
    web.faults[f"/set/{shard}"] = ["503"] * 9999
    start = words(address, run, **IN_BLOCKS, cache_gb=cache_gb, save_interval=2)
    status, said = in_this_process(start)
    assert status == 2
    reason = rf"^error: {re.escape(address)}/{shard}: the server answers 503.*run again when"
    assert re.search(reason, said, re.MULTILINE), said
    assert "Traceback" not in said
    assert 0 < len(losses(run)) < STEPS
    web.faults.clear()
    status, said = in_this_process(start)
    assert status == 0 and "resuming from" in said, said
    assert_equal(run, in_blocks)


def last_shard_read(dataset: Path, folder: Path) -> str:
    """The shard of the first epoch's last block, by a run's own batches."""
    from jielong.insight.subject import opened

    settings = TINY_RUN | {"data_path": str(dataset), "out_dir": str(folder / "x")} | IN_BLOCKS
    with opened(settings) as data:
        source = data.batches.source
        now, _ = source.shards_from(0, source.count - 1)  # type: ignore[union-attr]
        return str(data.dataset.train.names[now[-1]])


def test_a_damaged_shard_ends_the_run_before_it_is_trained_on(
    many_shards: Path, web: Served, tmp_path: Path
) -> None:
    address = serve(web, many_shards)
    web.damaged["/set/train-00002.bin"] = 99
    status, said = in_this_process(words(address, tmp_path / "run"))
    assert status == 2 and "Traceback" not in said
    assert f"error: {address}/train-00002.bin: damaged: its SHA-256 is " in said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_that_was_killed_goes_on_with_another_cache_to_the_same_bits(
    many_shards: Path,
    in_blocks: Path,
    web: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, changes = tmp_path / "run", IN_BLOCKS | {"cache_gb": room_for(many_shards, 6)}
    start = words(serve(web, many_shards), run, **changes, save_interval=3)
    with forked(*start) as process:
        kill_when(lambda: steps_trained(run) >= 9, process)
    newest, _ = ckpt.latest_valid_checkpoint(run / "checkpoints")
    assert newest is not None and ckpt.step_of(newest) < STEPS
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path / "elsewhere"))
    status, said = in_this_process(start)
    assert status == 0 and "resuming from" in said, said
    assert_equal(run, in_blocks)


def test_two_ranks_fetch_each_shard_once(many_shards: Path, web: Served, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = words(serve(web, many_shards), run, **IN_BLOCKS, steps=8)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node=2", "-m", "jielong", *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(shards_asked(web)) == len(set(shards_asked(web))) > 3
    train(many_shards, tmp_path / "alone", **IN_BLOCKS, steps=8)
    alone = [loss for _, loss, _ in losses(tmp_path / "alone")]
    assert [loss for _, loss, _ in losses(run)] == pytest.approx(alone, rel=1e-3)
    assert done.stdout.count("files are fetched first") == 1


def test_a_cache_too_small_for_the_order_is_told_with_what_would_fit(
    many_shards: Path, web: Served, tmp_path: Path
) -> None:
    address, cache_gb = serve(web, many_shards), room_for(many_shards, 5)
    status, said = in_this_process(words(address, tmp_path / "run", cache_gb=cache_gb))
    assert status == 2 and shards_asked(web) == []
    assert f"error: {address}: each step reads from all of the text: " in said
    fits = re.search(r"give --cache-gb [\d.e-]+ or more, or --shuffle-shards (\d+), which", said)
    assert fits and fits[1] == "2", said
    train(address, tmp_path / "fits", cache_gb=cache_gb, shuffle_shards=2)
    changes = {"cache_gb": cache_gb, "shuffle_shards": 3}
    status, said = in_this_process(words(address, tmp_path / "large", **changes))
    assert status == 2
    assert "two blocks of shards: " in said and "or a smaller --shuffle-shards" in said


def test_without_shuffling_a_few_shards_are_here_at_a_time(
    many_shards: Path, web: Served, tmp_path: Path
) -> None:
    changes = {"shuffle": "false"}
    train(many_shards, tmp_path / "here", **changes)
    cache_gb = room_for(many_shards, 5)
    train(serve(web, many_shards), tmp_path / "run", **changes, cache_gb=cache_gb)
    assert_equal(tmp_path / "run", tmp_path / "here")


def test_a_mixture_and_an_older_text_may_be_remote(
    many_shards: Path, corpus_file: Path, web: Served, tmp_path: Path
) -> None:
    address, runs = serve(web, many_shards), []
    common = {"tokenizer": str(many_shards / "tokenizer"), "shuffle_shards": 2}
    for name, place in (("here", str(many_shards)), ("there", address)):
        mixed = {
            "data_path": str(corpus_file),
            "replay": f"{place}=0.3",
            "out_dir": tmp_path / name,
        }
        status, said = in_this_process(["pretrain", *flags(TINY_RUN | common | mixed)])
        assert status == 0, said
        runs.append(tmp_path / name)
    assert_equal(*runs)
    settings = flags(TINY_RUN | common | {"out_dir": tmp_path / "mixture"})
    sources = ["--data", f"a=0.7:{address}", "--data", f"b=0.3:{corpus_file}"]
    status, said = in_this_process(["pretrain", *settings, *sources])
    assert status == 0 and "a, held-out" in said, said


def test_settings_with_a_remote_dataset_can_be_planned_and_looked_into(
    many_shards: Path, web: Served, tmp_path: Path
) -> None:
    settings = TINY_RUN | {"out_dir": str(tmp_path / "run")}
    here = settings | {"data_path": str(many_shards)}
    there = settings | {"data_path": serve(web, many_shards)}
    assert plan(there).text_tokens == plan(here).text_tokens
    assert shards_asked(web) == []
    assert inspect_data(there, step=3).rows == inspect_data(here, step=3).rows
    assert len(shards_asked(web)) > 0


def test_a_dataset_that_was_replaced_at_its_address_does_not_go_on_in_an_old_run(
    many_shards: Path, web: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharded import reshard

    address, run = serve(web, many_shards), tmp_path / "run"
    train(address, run)
    monkeypatch.setattr(remote_dataset, "FRESH_S", 0.0)
    other = reshard(many_shards, tmp_path / "other", 300)
    web.files.clear()
    serve(web, other)
    status, said = in_this_process(words(address, run, steps="none", epochs=5.0))
    assert status == 2 and "dataset" in said and "Traceback" not in said
    shutil.rmtree(tmp_path / "cache")
    web.files.clear()
    serve(web, many_shards)
    assert "complete" in train(address, run)


def searched(run: Path) -> list[float | None]:
    """The share of the text in which each measure of `memorising` looked; None is all of it."""
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [r.get("searched") for r in records if r["kind"] == "suite_memorising"]


def test_memorising_fetches_no_shard_again_where_the_cache_does_not_hold_all(
    many_shards: Path, web: Served, tmp_path: Path
) -> None:
    address, asked = serve(web, many_shards), list[int]()
    changes = IN_BLOCKS | {"max_seq_len": 32, "eval_interval": 4}
    for number, suites in enumerate(((), ("memorising",))):
        web.asked.clear()
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        more = {"eval_suite": suites} if suites else {}
        run = tmp_path / str(number)
        said = train(address, run, **changes, **more, cache_gb=room_for(many_shards, 6))
        asked.append(len(shards_asked(web)))
    shares = searched(run)
    assert len(shares) > 3 and all(share and 0 < share < 0.5 for share in shares)
    assert f"looked for in {shares[-1]:.1%} of the training text" in said
    # the first shard once more, whose words are counted, and what it and others displaced; that is
    # less than the text once, where it would be all of it at each validation
    assert asked[1] - asked[0] < len(list(many_shards.glob("train-*.bin"))), asked
    whole = tmp_path / "whole"
    assert "looked for in" not in train(address, whole, **changes, eval_suite=("memorising",))
    assert searched(whole) == [None] * len(shares)


def test_the_manifest_is_not_fetched_again_while_it_stays_the_same(
    many_shards: Path, web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_dataset, "FRESH_S", -1.0)
    address = serve(web, many_shards)
    folder = find_remote_dataset(address)
    assert folder is not None and web.asked
    web.asked.clear()
    assert find_remote_dataset(address) == folder
    assert web.asked == []  # but for one request of its version
    (folder / "dataset.json").unlink()
    assert find_remote_dataset(address) == folder
    assert (folder / "dataset.json").is_file()
    web.files.clear()
    assert find_remote_dataset(address) is None
