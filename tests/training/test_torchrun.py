"""torchrun, with its own launcher: mixtures of experts, runs that change hands, and a stop."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jielong import checkpoint as ckpt
from jielong.cli import main
from tiny import TINY_RUN, environment, flags

STEPS = 10  # two epochs and a half, with partial last batches
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SHARED = TINY_RUN | {
    "steps": STEPS,
    "batch_size": 3,  # two ranks share it unequally
    "accumulation_steps": 7,
    "eval_interval": 4,
    "keep_checkpoints": 9,
    "optimizer": "adamw",
    # a gradient that is nearly zero, divided by itself, would make large steps of rounding errors
    "adam_eps": 1e-3,
}
DENSE: dict[str, Any] = {"packing": "pad"}
EXPERTS: dict[str, Any] = {"use_moe": True, "moe_intermediate_size": 32}
RUNS = {
    "dense": DENSE,
    "batch": EXPERTS | {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.1},
    "bias": EXPERTS | {"router_aux_loss": "bias", "router_bias_rate": 0.01},
    "sequence": EXPERTS
    | {"router_aux_loss": "sequence", "num_shared_experts": 1, "router_z_loss_coef": 0.01},
}
# several runs in one launch: importing torch takes longer than training does
SEVERAL = """
import json, sys
from jielong.cli import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0
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


def words(settings: dict[str, Any], out_dir: Path) -> list[str]:
    return ["pretrain", *flags(settings | {"out_dir": str(out_dir)})]


def records(folder: Path, kind: str) -> dict[int, dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {r["step"]: r for r in map(json.loads, lines) if r["kind"] == kind}


def assert_same_run(got: Path, expected: Path) -> None:
    for kind in ("train", "validation"):
        ours, theirs = records(got, kind), records(expected, kind)
        assert ours.keys() == theirs.keys()
        for step, record in theirs.items():
            assert ours[step]["loss"] == pytest.approx(record["loss"], abs=1e-5), (kind, step)
            assert ours[step]["tokens"] == record["tokens"]


def forget_after(run: Path, step: int) -> None:
    for checkpoint in ckpt.checkpoints(run / "checkpoints"):
        if ckpt.step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


def test_two_processes_train_what_one_does_and_go_on_with_its_runs(
    alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    jobs = [words(shared | changes, tmp_path / name) for name, changes in RUNS.items()]
    for name in ("dense", "bias"):  # runs of one process that stopped after step 4
        shutil.copytree(alone / name, tmp_path / f"{name} resumed")
        forget_after(tmp_path / f"{name} resumed", 4)
        jobs.append(words(shared | RUNS[name], tmp_path / f"{name} resumed"))
    script = tmp_path / "several.py"
    script.write_text(SEVERAL)
    command = [*LAUNCHER, str(script), json.dumps(jobs)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in sorted(tmp_path.glob("*/checkpoints")):
        run = folder.parent
        assert_same_run(run, alone / run.name.removesuffix(" resumed"))
        assert [ckpt.step_of(path) for path in ckpt.checkpoints(folder)] == [4, 8, STEPS]
    assert len(list(tmp_path.glob("*/checkpoints"))) == len(jobs)
    # rank 1 says nothing
    assert done.stdout.count("device cpu") == len(jobs)
    assert done.stdout.count(f"step {STEPS}/{STEPS} ") == len(jobs)
    assert done.stdout.count("resuming from") == 2


def test_sigterm_to_torchrun_saves_and_one_process_goes_on(
    alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    # the schedule is that of the uninterrupted run; save_interval leaves the saving to the stop
    command = words(shared | DENSE | {"save_interval": 1000}, run)
    process = subprocess.Popen(
        [*LAUNCHER, "-m", "jielong", *command],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b'"train"') >= 2:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.002)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    newest, problems = ckpt.newest_valid(run / "checkpoints")
    assert newest is not None and not problems, out + err
    step = ckpt.step_of(newest)
    assert 2 <= step < STEPS
    assert out.count(f"stopped after step {step};") == 1
    assert not list((run / "checkpoints").glob(".*"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(command) == 0
    assert "resuming from" in said.getvalue()
    assert_same_run(run, alone / "dense")
