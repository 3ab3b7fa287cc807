"""Row 30 on two machines, which are network namespaces: the link between them is cut and mended.

Needs root and the right to make namespaces; skips where it has neither.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from tiny import TINY_RUN, environment, flags, rank_timeout, steps_trained, until

NUMBER = os.getpid() % 200  # of a network of our own, should several tests run
ADDRESSES = [f"10.213.{NUMBER}.{host}" for host in (1, 2)]
LINKS = [f"jl{os.getpid()}{end}" for end in "ab"]
PORT = 29453
RANKS = (1, 2)  # on each machine
STEPS, CUT_FROM, GATE = 40, 12, 30
# No rank goes past the step GATE before the link has been cut; after it each goes on as it can.
SCRIPT = """
import json, os, sys, time
from jielong.cli.main import main
from jielong.training.step import TrainStep
real, gate, seen = TrainStep.__call__, int(sys.argv[1]), []

def step(self, *arguments, **options):
    seen.append(1)
    while not os.path.exists(sys.argv[2]):
        self.world.beat()
        time.sleep(0.02)
        if len(seen) < gate:
            break
    return real(self, *arguments, **options)

TrainStep.__call__ = step
for words in json.loads(sys.argv[3]):
    if status := main(words):
        sys.exit(status)
"""


def ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


def processes_of(machine: str) -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", machine, check=False).split()]


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
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield LINKS
    finally:
        for name in LINKS:
            for pid in processes_of(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ip("netns", "del", name, check=False)


def start(machine: int, output: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """torchrun on a machine; they meet at the first one's address."""
    name = LINKS[machine]
    launcher = [
        *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes=2", f"--nproc-per-node={RANKS[machine]}", "--max-restarts=1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}", "--rdzv-id=two"),
        f"--local-addr={ADDRESSES[machine]}",
        # the patience with a failing network that scripts/ have too
        f"--rdzv-conf=is_host={int(machine == 0)},read_timeout=600",
    ]
    with output.open("wb") as file:
        return subprocess.Popen(
            [*launcher, *words],
            env=environment(GLOO_SOCKET_IFNAME=name, TORCHELASTIC_ERROR_FILE=""),
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def have_ended(machines: list[str]) -> bool:
    """Whether the ranks have; torchrun itself stays."""
    for pid in [pid for machine in machines for pid in processes_of(machine)]:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if command and b"torch.distributed.run" not in command:
                return False
    return True


def test_a_link_that_is_cut_ends_the_ranks_of_both_machines_and_mended_the_run_goes_on(
    machines: list[str], corpus_file: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    timeout_s = rank_timeout()
    settings: dict[str, Any] = TINY_RUN | {"steps": STEPS, "rank_timeout": timeout_s}
    settings |= {"eval_interval": 5, "save_interval": 5, "keep_checkpoints": 99}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    runs = [tmp_path / name for name in ("cut", "whole")]
    jobs = json.dumps([["pretrain", *flags(settings | {"out_dir": run})] for run in runs])
    script, cut = tmp_path / "script.py", tmp_path / "link is cut"
    script.write_text(SCRIPT)
    outputs = [tmp_path / f"said on {name}" for name in machines]
    words = [str(script), str(GATE), str(cut), jobs]
    launchers = [start(machine, outputs[machine], words) for machine in range(2)]

    def said() -> list[str]:
        return [output.read_text(errors="replace") for output in outputs]

    def ended() -> bool:
        return all(launcher.poll() is not None for launcher in launchers)

    assert until(lambda: steps_trained(runs[0]) >= CUT_FROM or ended()) and not ended(), said()
    ip("-n", machines[0], "link", "set", machines[0], "down")
    cut.touch()
    assert until(lambda: have_ended(machines)), said()  # gloo alone would wait for ten minutes
    newest, problems = ckpt.latest_valid_checkpoint(runs[0] / "checkpoints")
    assert newest is not None and 5 <= ckpt.step_of(newest) < STEPS and not problems
    ip("-n", machines[0], "link", "set", machines[0], "up")
    assert until(ended), said()
    assert [launcher.returncode for launcher in launchers] == [0, 0], said()
    here, there = said()
    # a connection that is being made as the link fails breaks; else there is silence
    assert re.search(r"error: rank 1 \(process .* (said nothing for|ended without a word)", here)
    named = re.findall(r"error: rank (.) \(process .* has (?:said nothing for|ended, or)", there)
    assert named == ["0", "0"], there  # nothing can be known there of how the other one is
    assert here.count(f"resuming from {newest}") == 1
    for file in ("model.safetensors", "optimizer.safetensors"):
        paths = [run / "checkpoints" / ckpt.step_name(STEPS) / file for run in runs]
        assert paths[0].read_bytes() == paths[1].read_bytes()
