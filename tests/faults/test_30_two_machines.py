"""Two machines, as two network namespaces: the link between them is cut in the middle of a run.

Needs root and the right to make namespaces; skips where it has neither.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from tiny import TINY_RUN, environment, flags

NUMBER = os.getpid() % 200  # of a network of our own, should several tests run
ADDRESSES = [f"10.213.{NUMBER}.{host}" for host in (1, 2)]
LINKS = [f"jl{os.getpid()}{end}" for end in "ab"]
PORT = 29453
# Slowed down, so that there is time to cut the link before the run is at its end.
SLOW = """
import json, sys, time
from jielong.cli.main import main
from jielong.training.step import TrainStep
real = TrainStep.__call__

def slow(*arguments, **options):
    time.sleep(float(sys.argv[1]))
    return real(*arguments, **options)

TrainStep.__call__ = slow
for words in json.loads(sys.argv[2]):
    if status := main(words):
        sys.exit(status)
"""


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two namespaces, named as the ends of the link between them."""
    if os.name != "posix" or os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the command `ip`")
    try:
        try:
            for name in LINKS:
                ip("netns", "add", name)
            ip("link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1])
            for name, address in zip(LINKS, ADDRESSES, strict=True):
                ip("link", "set", name, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
                for device in ("lo", name):
                    ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        yield LINKS
    finally:
        ip("link", "del", LINKS[0], check=False)
        for name in LINKS:
            ip("netns", "del", name, check=False)


def start(
    machines: list[str], script: Path, slowness: float, words: str
) -> list[subprocess.Popen[str]]:
    """torchrun on each machine; they meet at the first one's address."""
    return [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"),
                *(f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}", "--rdzv-id=two"),
                *(f"--local-addr={address}", "--max-restarts=0"),
                f"--rdzv-conf=is_host={int(name == machines[0])}",
                *(str(script), str(slowness), words),
            ],
            env=environment(GLOO_SOCKET_IFNAME=name, TORCHELASTIC_ERROR_FILE=""),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, address in zip(machines, ADDRESSES, strict=True)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What was said."""
    said = []
    for process in processes:
        try:
            out, err = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            process.kill()  # its rank has ended, or it has none
            out, err = process.communicate()
        said.append(out + err)
    return said


def wait_for_ranks(name: str) -> bool:
    """Whether the ranks on a machine have ended in time."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
        commands = []
        for pid in pids.split():
            with contextlib.suppress(OSError):
                commands.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        if all(b"torch.distributed.run" in words or not words for words in commands):
            return True
        time.sleep(0.1)
    return False


def steps_of(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return (run / "metrics.jsonl").read_bytes().count(b'"train"')
    return 0


def test_a_link_that_is_cut_ends_the_run_on_both_machines_and_it_goes_on_when_it_is_back(
    machines: list[str], corpus_file: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = TINY_RUN | {"steps": 40, "eval_interval": 5, "rank_timeout": 5}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir, "keep_checkpoints": 99}
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    runs = [tmp_path / name for name in ("whole", "cut")]
    whole, words = (["pretrain", *flags(settings | {"out_dir": run})] for run in runs)
    cut = start(machines, script, 0.2, json.dumps([words]))
    deadline = time.monotonic() + 180
    while steps_of(runs[1]) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    ip("-n", machines[0], "link", "set", machines[0], "down")
    for name in machines:  # within three minutes: gloo by itself would wait ten
        assert wait_for_ranks(name), f"the rank on {name} did not end"
    ip("-n", machines[0], "link", "set", machines[0], "up")  # without it torchrun itself waits
    said = finish(cut)
    assert all(process.returncode for process in cut), said
    for rank, text in enumerate(said):
        assert f"error: rank {1 - rank} (process " in text and "has said nothing for 5 s" in text
    newest, problems = ckpt.latest_valid_checkpoint(runs[1] / "checkpoints")
    assert newest is not None and 10 <= ckpt.step_of(newest) < 40 and not problems
    again = start(machines, script, 0, json.dumps([words, whole]))  # and one that is not cut
    said = finish(again)
    assert [process.returncode for process in again] == [0, 0], said
    assert f"resuming from {newest}" in "".join(said)
    for file in ("model.safetensors", "optimizer.safetensors"):
        paths = [run / "checkpoints" / ckpt.step_name(40) / file for run in runs]
        assert paths[0].read_bytes() == paths[1].read_bytes()
