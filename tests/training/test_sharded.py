"""FSDP2: processes that keep a part of the model each train what one process does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jielong.checkpoint import checkpoint as ckpt
from jielong.cli.main import main
from tiny import TINY_RUN, in_this_process
from training.test_distributed import free_port, python_in_ranks, records
from training.test_torchrun import assert_same_run, words

STEPS, RESUMED = 8, 4
SHARED = TINY_RUN | {
    "steps": STEPS,
    "eval_interval": RESUMED,
    "save_interval": 2,
    "batch_size": 6,
    "keep_checkpoints": 9,
    "learning_rate": 1e-3,
    "sample_tokens": 4,
}
EXPERTS = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
RUNS: dict[str, dict[str, Any]] = {
    # 5 rows of keys and values, 37 of the feed-forward: parts of unequal size
    "dense": {"head_dim": 10, "intermediate_size": 37, "tie_word_embeddings": True},
    "experts": EXPERTS | {"router_aux_loss": "bias", "tie_word_embeddings": False},
    "balanced": EXPERTS | {"activation_checkpointing": "full", "dropout": 0.1},
}
# Several runs in one launch, since importing torch takes longer than training does; each meets at a
# port of its own. One may go on from a step that it had passed.
SEVERAL = """
import json, os, sys
from jielong.cli.main import main
from training.test_sharded import forget_after
for port, words, folder, step in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    if folder and os.environ["RANK"] == "0":
        forget_after(step, folder)
    assert main(words) == 0, words
"""


@pytest.fixture(scope="module")
def shared(corpus_file: Path, tokenizer_dir: Path) -> dict[str, Any]:
    return SHARED | {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}


@pytest.fixture(scope="module")
def alone(shared: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of RUNS trained by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, changes in RUNS.items():
        assert main(words(shared | changes, folder / name)) == 0
    return folder


def cut_short(run: Path, target: Path) -> Path:
    """A copy of a run, as if stopped after the step RESUMED."""
    shutil.copytree(run, target)
    forget_after(RESUMED, target)
    return target


def forget_after(step: int, run: str | Path) -> None:
    """Delete the checkpoints of later steps."""
    for checkpoint in ckpt.checkpoints(Path(run) / "checkpoints"):
        if ckpt.step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


def launch(ranks: int, jobs: list[list[str]], back: Path | None = None, step: int = 0) -> str:
    """Run `jielong` with each job's words in ranks, one job after the other; what rank 0 said.

    Args:
        back: the folder of the last job's run, which goes on from `step`, though it has gone on.
    """
    numbered = json.dumps(
        [(free_port(), job, str(back) if back and job is jobs[-1] else None, step) for job in jobs]
    )
    found = python_in_ranks(ranks, ["-c", SEVERAL, numbered])
    for status, said in found:
        assert status == 0, said
    assert found[1][1] == ""  # rank 1 says nothing
    return found[0][1]


@pytest.fixture(scope="module")
def two(
    alone: Path, shared: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """RUNS by two processes, and one that goes on from a checkpoint of one process."""
    folder = tmp_path_factory.mktemp("two")
    fsdp = shared | {"parallel": "fsdp"}
    jobs = [words(fsdp | changes, folder / name) for name, changes in RUNS.items()]
    resumed = cut_short(alone / "experts", folder / "experts resumed")
    jobs.append(words(fsdp | RUNS["experts"], resumed))
    switched = cut_short(alone / "experts", folder / "switched")
    forget_after(2, switched)
    for parallel in ("ddp", "fsdp"):
        jobs.append(words(shared | RUNS["experts"] | {"parallel": parallel}, switched))
    return folder, launch(2, jobs, switched, 4)


def test_a_run_says_how_its_model_is_divided(two: tuple[Path, str]) -> None:
    line = "parallel   FSDP2: 2 processes share one copy of the model; gradients are added up once"
    assert two[1].count(line) == len(RUNS) + 2
    assert two[1].count("parallel   DDP: each of 2 processes holds the whole model") == 1
    assert two[1].count("resuming from") == 3


@pytest.mark.parametrize("name", [*RUNS, "experts resumed"])
def test_two_processes_with_a_part_each_train_what_one_does(
    name: str, two: tuple[Path, str], alone: Path
) -> None:
    run, expected = two[0] / name, alone / name.removesuffix(" resumed")
    assert_same_run(run, expected)
    for step, record in records(expected, "train").items():
        assert records(run, "train")[step]["grad_norm"] == pytest.approx(
            record["grad_norm"], rel=1e-3
        )


@pytest.mark.parametrize("name", RUNS)
def test_their_checkpoints_are_those_of_one_process(
    name: str, two: tuple[Path, str], alone: Path
) -> None:
    last = Path("checkpoints") / ckpt.step_name(STEPS)
    ours, theirs = two[0] / name / last, alone / name / last
    assert {p.name for p in ours.iterdir()} == {p.name for p in theirs.iterdir()}
    ckpt.verify(ours)
    for file in theirs.glob("*.safetensors"):
        found, expected = load_file(ours / file.name), load_file(file)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-2, atol=1e-4)


def test_one_process_goes_on_with_what_two_have_divided(
    two: tuple[Path, str], alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    run = cut_short(two[0] / "balanced", tmp_path / "balanced")
    status, said = in_this_process(words(shared | RUNS["balanced"], run))
    assert status == 0 and "resuming from" in said
    assert_same_run(run, alone / "balanced")


def test_one_process_and_two_by_ddp_and_by_fsdp_and_one_again_train_what_one_does(
    two: tuple[Path, str], alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    """Steps 1 and 2, 3 and 4, 5 and 6, 7 and 8."""
    run = tmp_path / "switched"
    shutil.copytree(two[0] / "switched", run)
    forget_after(6, run)
    status, said = in_this_process(words(shared | RUNS["experts"], run))
    assert status == 0 and f"resuming from {run / 'checkpoints' / ckpt.step_name(6)}" in said
    assert_same_run(run, alone / "experts")


def test_pairs_of_processes_with_a_copy_each_train_what_one_does(
    alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    pairs = shared | RUNS["experts"] | {"parallel": "fsdp", "shard_degree": 2}
    said = launch(4, [words(pairs, tmp_path / "pairs")])
    assert "parallel   HSDP: each 2 of 4 processes share a copy of the model" in said
    assert_same_run(tmp_path / "pairs", alone / "experts")
