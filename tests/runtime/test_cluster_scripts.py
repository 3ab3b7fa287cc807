"""The scripts for clusters are what Slurm and JobSet read, and start a command that jielong has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jielong.cli.main import parse

SCRIPTS = Path(__file__).parents[2] / "scripts"
SLURM, JOBSET = SCRIPTS / "slurm.sbatch", SCRIPTS / "kubernetes-jobset.yaml"
# options of sbatch, as its manual page has them, and the form of their values
SBATCH = {
    "job-name": r"[\w.-]+",
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"([\w-]+:)?\d+",
    "cpus-per-task": r"\d+",
    "time": r"(\d+-)?\d+(:\d\d){0,2}",
    "signal": r"((R|B)+:)?[A-Z0-9]+(@\d{1,5})?",
    "open-mode": r"append|truncate",
    "output": r"[\w%./-]+",
    "requeue": None,
}


def directives(text: str) -> dict[str, str | None]:
    """What sbatch reads: it stops at the first line that is neither a comment nor empty."""
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert match, line
            assert match[1] not in found
            found[match[1]] = match[2]
    return found


def test_sbatch_reads_every_directive() -> None:
    text = SLURM.read_text()
    found = directives(text)
    assert text.startswith("#!/bin/bash\n") and len(found) == text.count("#SBATCH")
    for name, value in found.items():
        form = SBATCH[name]
        assert (value is None) == (form is None), name
        assert form is None or re.fullmatch(form, value or ""), (name, value)
    assert found["ntasks-per-node"] == "1"  # torchrun starts the processes of a node


def run_slurm(folder: Path, status: int, restarts: int) -> tuple[int, list[list[str]], str]:
    """Runs the script with stand-ins for Slurm's commands: its status and what they were given."""
    note = f'{{ printf "%s\\0" "$(basename "$0")" "$@"; echo; }} >> {folder}/asked'
    bodies = {"srun": f"exit {status}", "scontrol": "printf 'node7\\nnode8\\n'"}
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/sh\n{note}\n{body}\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(SLURM), "--preset", "tiny", "--out-dir", "a folder"],
        env={
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "8",
            "SLURM_RESTART_COUNT": str(restarts),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    asked = (folder / "asked").read_text().splitlines()
    return done.returncode, [line.split("\0")[:-1] for line in asked], done.stderr


@pytest.mark.parametrize(
    ("status", "restarts", "again"), [(0, 0, False), (1, 0, True), (1, 20, False)]
)
def test_a_slurm_job_starts_torchrun_on_its_nodes_and_is_queued_again_if_it_fails(
    status: int, restarts: int, again: bool, tmp_path: Path
) -> None:
    got, asked, problems = run_slurm(tmp_path, status, restarts)
    assert got == status and not problems
    assert (["scontrol", "requeue", "4242"] in asked) == again
    (srun,) = (words for words in asked if words[0] == "srun")
    rank_words = srun[srun.index("torchrun") + 1 :]
    assert "--rdzv-endpoint=node7:24242" in rank_words and "--nnodes=2" in rank_words
    assert_torchrun_starts_pretrain(rank_words)
    assert rank_words[-4:] == ["--preset", "tiny", "--out-dir", "a folder"]


def assert_torchrun_starts_pretrain(words: list[str]) -> None:
    """Words after `torchrun`, by its own parser, and those after `jielong`, by ours."""
    from torch.distributed.run import get_args_parser

    read = get_args_parser().parse_args(words)
    assert read.module and read.training_script == "jielong"
    assert read.rdzv_backend == "c10d" and read.max_restarts == 3
    assert read.rdzv_conf == "read_timeout=600"  # a network that is away for a while comes back
    assert parse(read.training_script_args).command.__module__ == "jielong.cli.pretrain"


def test_bash_and_shellcheck_take_the_slurm_script() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(SLURM)], check=True)


@pytest.fixture
def jobset() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(JOBSET.read_text())
    assert isinstance(found, dict)
    return found


def test_the_jobset_has_the_fields_of_its_api(jobset: dict[str, Any]) -> None:
    """The models of the API refuse missing fields and wrong types, and drop unknown fields."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    read = models.JobsetV1alpha2JobSet.from_dict(jobset)
    assert read is not None and read.to_dict() == jobset
    assert read.api_version == "jobset.x-k8s.io/v1alpha2" and read.kind == "JobSet"


def test_the_jobset_starts_torchrun_on_each_node_with_the_first_as_its_meeting_point(
    jobset: dict[str, Any],
) -> None:
    name, spec = jobset["metadata"]["name"], jobset["spec"]
    (job,) = spec["replicatedJobs"]
    nodes = job["template"]["spec"]
    assert nodes["parallelism"] == nodes["completions"] and nodes["completionMode"] == "Indexed"
    pod = nodes["template"]["spec"]
    (container,) = pod["containers"]
    words = container["command"]
    assert words[0] == "torchrun" and f"--nnodes={nodes['parallelism']}" in words
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--nproc-per-node={gpus}" in words
    port = container["ports"][0]["containerPort"]
    # as JobSet names the pods: SET-JOB-INDEX-POD.SUBDOMAIN
    host = f"{name}-{job['name']}-0-0.{spec['network']['subdomain']}"
    assert f"--rdzv-endpoint={host}:{port}" in words
    assert_torchrun_starts_pretrain(words[1:])
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
