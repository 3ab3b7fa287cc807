"""Kills a rank of two again and again, and looks whether torchrun's second start ends the run.

    python tests/faults/restarts.py --tries 20

Each try is `torchrun --max-restarts 1`; one rank gets SIGKILL at another step than in the try
before, from outside and so anywhere within it. The run must end, with the bits of one left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jielong.checkpoint import checkpoint
from jielong.tokenization.tokenizer import train_tokenizer
from tiny import TEXTS, TINY_RUN, environment, flags, until

STEPS, SAVES = 200, 10
FILES = ("model.safetensors", checkpoint.TRAINING_WEIGHTS, "optimizer.safetensors")


def start(folder: Path, corpus: Path, tokenizer: Path, output: Path) -> subprocess.Popen[bytes]:
    """torchrun with two ranks, in a session of its own."""
    settings = TINY_RUN | {"steps": STEPS, "eval_interval": STEPS, "save_interval": SAVES}
    settings |= {"data_path": corpus, "tokenizer": tokenizer, "out_dir": folder}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "--max-restarts=1", "-m", "jielong", "pretrain", *flags(settings)]
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def records(path: Path, kind: str) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        lines = path.read_bytes().split(b"\n")[:-1]
        return [r for r in map(json.loads, lines) if r["kind"] == kind]
    return []


def outcome(folder: Path) -> tuple[Any, ...]:
    """What must be equal to the bit."""
    last = folder / "checkpoints" / checkpoint.step_name(STEPS)
    sums = [hashlib.sha256((last / file).read_bytes()).hexdigest() for file in FILES]
    losses = {r["step"]: r["loss"] for r in records(folder / "metrics.jsonl", "train")}
    return (*sums, losses)


def measure(tries: int, folder: Path) -> dict[str, Any]:
    """How many of the tries went on to the same end, and how long that took."""
    corpus, tokenizer = folder / "corpus.jsonl", folder / "tokenizer"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    train_tokenizer(TEXTS, 288, 2**20).save(tokenizer)
    said = folder / "whole.txt"
    whole = start(folder / "whole", corpus, tokenizer, said)
    assert until(lambda: whole.poll() is not None) and whole.returncode == 0, said.read_text()
    expected = outcome(folder / "whole")
    killed = ended = equal = tracebacks = 0
    seconds, failures = [], []
    for n in range(tries):
        run, said = folder / f"try-{n}", folder / f"try-{n}.txt"
        process = start(run, corpus, tokenizer, said)
        step, metrics = SAVES + 1 + n * (STEPS // 2) // tries, run / "metrics.jsonl"
        reached = until(
            lambda p=process, m=metrics, s=step: (
                len(records(m, "train")) >= s or p.poll() is not None
            ),
            120_000,
        )
        ranks = {r["rank"]: r["process"] for r in records(run / "ranks.jsonl", "rank")}
        if reached and process.poll() is None:
            os.kill(ranks[n % 2], signal.SIGKILL)
            killed += 1
        began = time.monotonic()
        if not until(lambda p=process: p.poll() is not None):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        text = said.read_text()
        tracebacks += "Traceback" in text
        ended += process.returncode == 0
        if process.returncode == 0 and outcome(run) == expected and "resuming from" in text:
            equal += 1
            seconds.append(time.monotonic() - began)
        else:
            failures.append((n, process.returncode, text[-400:]))
        shutil.rmtree(run)
    return {
        "tries": tries,
        "killed": killed,
        "ended": ended,
        "bit-equal": equal,
        "with a traceback": tracebacks,
        "seconds from the kill to the end, at most": round(max(seconds, default=0.0), 1),
        "failures": failures,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(chosen.tries, Path(scratch))
    for key, value in result.items():
        print(f"{key:44} {value}")
    sys.exit(result["bit-equal"] != result["tries"])
