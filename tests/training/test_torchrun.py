"""torchrun, with its own launcher: mixtures of experts, runs that change hands, and a stop."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.cli.main import main
from tiny import TINY_RUN, environment, flags

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SHARED = TINY_RUN | {
    "keep_checkpoints": 9,
    "optimizer": "adamw",
    # a gradient that is nearly zero, divided by itself, would make large steps of rounding errors
    "adam_eps": 1e-3,
}
# two ranks share each micro-batch unequally
DENSE = {"packing": "pad", "batch_size": 9, "steps": 30, "eval_interval": 12}
# the second step of an epoch has one window: none for rank 1
EXPERTS = {"batch_size": 59, "steps": 6, "eval_interval": 3, "use_moe": True}
RUNS: dict[str, dict[str, Any]] = {
    "dense": DENSE,
    "batch": EXPERTS | {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.1},
    "bias": EXPERTS | {"router_aux_loss": "bias", "router_bias_rate": 0.01},
    "sequence": EXPERTS
    | {"router_aux_loss": "sequence", "num_shared_experts": 1, "router_z_loss_coef": 0.01},
}
RESUMED = {"dense": 24, "bias": 3}
# Several runs in one launch, since importing torch takes longer than training does.
SEVERAL = """
import json, sys
from jielong.cli.main import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0
"""
# In each start but the last, a process ends in another way within a step; the launcher starts both
# again.
FATES = ("killed", "left", "crashed")
KILLED = """
import ctypes, json, os, signal, sys
from jielong.cli.main import main
from jielong.training.step import TrainStep
real, seen, fates = TrainStep.__call__, [], json.loads(sys.argv[1])
start, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])

def ends(*arguments, **options):
    seen.append(1)
    if len(seen) == 17 - 12 * (start > 0):
        if fates[start] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fates[start] == "left":
            os._exit(9)
        ctypes.string_at(0)
    return real(*arguments, **options)

if start < len(fates) and rank == (start + 1) % 2:
    TrainStep.__call__ = ends
sys.exit(main(json.loads(sys.argv[2])))
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


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*LAUNCHER, *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What was said; asks torchrun to end after a time, since killed it would leave its ranks."""
    try:
        return process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.communicate()


def test_a_mistake_that_rank_0_finds_is_no_traceback(
    shared: dict[str, Any], tmp_path: Path
) -> None:
    mistake = words(shared | {"data_path": "nowhere.jsonl"}, tmp_path / "run")
    logs = tmp_path / "logs"
    process = start("--redirects=3", f"--log-dir={logs}", "-m", "jielong", *mistake)
    finish(process)
    assert process.returncode != 0
    said = {path.parent.name: path.read_text() for path in logs.rglob("stderr.log")}
    assert sorted(said) == ["0", "1"]
    assert "nowhere.jsonl" in said["0"] and said["0"].startswith("error: ")
    assert "Traceback" not in said["0"] + said["1"]
    # the launcher may end rank 1 before it has said so much
    assert said["1"] in ("", "error: another rank failed; see its error message\n")


def test_two_processes_train_what_one_does_and_go_on_with_its_runs(
    alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    jobs = [words(shared | RUNS[name], tmp_path / name) for name in RUNS if name != "dense"]
    for name, step in RESUMED.items():  # runs of one process, as if stopped after that step
        run = tmp_path / f"{name} resumed"
        shutil.copytree(alone / name, run)
        for checkpoint in ckpt.checkpoints(run / "checkpoints"):
            if ckpt.step_of(checkpoint) > step:
                shutil.rmtree(checkpoint)
        jobs.append(words(shared | RUNS[name], run))
    script = tmp_path / "several.py"
    script.write_text(SEVERAL)
    process = start(str(script), json.dumps(jobs))
    out, err = finish(process)
    assert process.returncode == 0, out + err
    runs = [folder.parent for folder in tmp_path.glob("*/checkpoints")]
    assert len(runs) == len(jobs)
    for run in runs:
        reference = alone / run.name.removesuffix(" resumed")
        assert_same_run(run, reference)
        names = [path.name for path in ckpt.checkpoints(run / "checkpoints")]
        assert names == [path.name for path in ckpt.checkpoints(reference / "checkpoints")]
    # rank 1 says nothing
    assert out.count("device     cpu") == out.count("next steps\n") == len(jobs)
    assert out.count("resuming from") == len(RESUMED)


def test_killed_left_and_crashed_in_steps_and_restarted_it_ends_with_the_bits_of_a_quiet_run(
    alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    for name, fates in (("quiet", ()), ("restarted", FATES)):
        command = json.dumps(words(shared | DENSE, tmp_path / name))
        process = start(f"--max-restarts={len(fates)}", str(script), json.dumps(fates), command)
        out, err = finish(process)
        assert process.returncode == 0, out + err
        assert "Traceback" not in err.split("torch.distributed.elastic")[0]
        assert out.count("resuming from") == len(fates)
    quiet, restarted = tmp_path / "quiet", tmp_path / "restarted"
    last = Path("checkpoints") / ckpt.step_name(DENSE["steps"])
    for file in ("model.safetensors", ckpt.TRAINING_WEIGHTS, "optimizer.safetensors"):
        assert (quiet / last / file).read_bytes() == (restarted / last / file).read_bytes()
    for kind in ("train", "validation"):
        ours, theirs = records(restarted, kind), records(quiet, kind)
        assert {s: r["loss"] for s, r in ours.items()} == {s: r["loss"] for s, r in theirs.items()}
    assert_same_run(restarted, alone / "dense")


def test_sigterm_to_torchrun_saves_and_one_process_goes_on(
    alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    # only the stop saves
    command = words(shared | DENSE | {"save_interval": 1000}, run)
    process = start("-m", "jielong", *command)
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b'"train"') >= 2:
            process.terminate()
            break
        time.sleep(0.002)
    out, err = finish(process)
    assert process.returncode != 0, out + err
    newest, problems = ckpt.latest_valid_checkpoint(run / "checkpoints")
    assert newest is not None and not problems, out + err
    step = ckpt.step_of(newest)
    assert 2 <= step < DENSE["steps"]
    assert out.count(f"stopped after step {step};") == 1
    assert not list((run / "checkpoints").glob(".*"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(command) == 0
    assert "resuming from" in said.getvalue()
    assert_same_run(run, alone / "dense")
