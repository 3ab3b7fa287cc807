"""Kills runs at points spread over training and saving, resumes them, compares with one left alone.

    python tests/faults/kill_points.py --points 200 [--grace]

With --grace each run has had a SIGTERM some events before it is killed. A point is the n-th event
of a run: a training step, a file written (killed half-way), an fsync, or a rename. Each run is a
fork of this process, which has imported everything but never
trained, so a point costs a second and not the start of Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import torch
import torch._dynamo  # what torch imports when an optimizer is made: most of a small run's time

from jielong.checkpoint import checkpoint, weights
from jielong.cli.main import main
from jielong.tokenization.tokenizer import train_tokenizer
from jielong.training.step import TrainStep
from tiny import TEXTS, TINY_RUN, flags

torch.set_num_threads(1)
SETTINGS = TINY_RUN | {"steps": 20, "save_interval": 2, "eval_interval": 4, "num_workers": 0}


class Events:
    """Counts the events of a run from its first training step on, and kills it at one of them."""

    def __init__(self, fatal: int | None, grace: int | None) -> None:
        self.fatal, self.count, self.kinds = fatal, -1, Counter[str]()
        self.warned = None if fatal is None or grace is None else max(0, fatal - grace)

    def happens(self, kind: str, damage: Callable[[], Any] = lambda: None) -> None:
        if kind == "step" and self.count < 0:
            self.count = 0
        if self.count < 0:
            return
        if self.count == self.warned:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.count == self.fatal:
            damage()
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1
        self.kinds[kind] += 1

    def install(self) -> None:
        """Puts itself before everything that the loop and the checkpoint do to the disk."""
        train_step, save_file = TrainStep.__call__, weights.save_file

        def step(*arguments: Any, **options: Any) -> Any:
            self.happens("step")
            return train_step(*arguments, **options)

        def save(tensors: Any, path: Any, **options: Any) -> None:
            def half() -> None:
                save_file(tensors, path, **options)
                os.truncate(path, Path(path).stat().st_size // 2)

            self.happens("tensors", half)
            save_file(tensors, path, **options)

        write_text = Path.write_text

        def write(path: Path, text: str, *arguments: Any, **options: Any) -> int:
            self.happens("text", lambda: write_text(path, text[: len(text) // 2]))
            return write_text(path, text, *arguments, **options)

        TrainStep.__call__ = step  # type: ignore[method-assign]
        weights.save_file = save
        Path.write_text = write  # type: ignore[method-assign]
        for name in ("fsync", "rename", "replace"):
            setattr(os, name, self._before(name, getattr(os, name)))

    def _before(self, kind: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.happens(kind)
            return act(*arguments, **options)

        return wrapped


def run(
    folder: Path,
    corpus: Path,
    tokenizer: Path,
    fatal: int | None = None,
    grace: int | None = None,
) -> int:
    """A run in a forked process, killed at event `fatal`, warned `grace` before: its status."""
    child = os.fork()
    if child == 0:
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(os.open(folder.parent / f"{folder.name}.err", os.O_WRONLY | os.O_CREAT), 2)
        events = Events(fatal, grace)
        events.install()
        places = {"data_path": corpus, "tokenizer": tokenizer, "out_dir": folder}
        status = main(["pretrain", *flags(SETTINGS | places)])
        (folder.parent / "events.json").write_text(json.dumps([events.count, events.kinds]))
        os._exit(status)
    return os.waitpid(child, 0)[1]


def outcome(folder: Path) -> tuple[Any, ...]:
    """What must be equal to the bit: weights, optimizer, and each step's loss."""
    last = folder / "checkpoints" / checkpoint.step_name(SETTINGS["steps"])
    files = ("model.safetensors", checkpoint.TRAINING_WEIGHTS, "optimizer.safetensors")
    sums = [hashlib.sha256((last / file).read_bytes()).hexdigest() for file in files]
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return (*sums, [(r["step"], r["loss"]) for r in records if r["kind"] == "train"])


def measure(points: int, folder: Path, grace: bool = False) -> dict[str, Any]:
    """Survival and bit-equality over `points` kills, evenly spread over a run's events.

    After a SIGTERM a run may end before it would have been killed: `killed` tells how many were.
    """
    corpus, tokenizer = folder / "corpus.jsonl", folder / "tokenizer"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    train_tokenizer(TEXTS, 288, 2**20).save(tokenizer)
    assert run(folder / "whole", corpus, tokenizer) == 0, (folder / "whole.err").read_text()
    expected = outcome(folder / "whole")
    events, kinds = json.loads((folder / "events.json").read_text())
    killed = resumed = equal = 0
    lost, seconds, failures = [], [], []
    for n in range(points):
        fatal = n * events // points
        name = folder / f"killed-{n}"
        shutil.copytree(folder / "whole" / "data", name / "data")  # preparing has its own test
        shutil.copy(folder / "whole" / "config.toml", name)
        killed += (
            run(name, corpus, tokenizer, fatal, 1 + n % 9 if grace else None) == signal.SIGKILL
        )
        newest, _ = checkpoint.latest_valid_checkpoint(name / "checkpoints")
        done = (name / "metrics.jsonl").read_bytes().count(b'"train"')
        lost.append(max(0, done - (checkpoint.step_of(newest) if newest else 0)))
        started = time.perf_counter()
        ended = run(name, corpus, tokenizer)
        seconds.append(time.perf_counter() - started)
        resumed += ended == 0
        if ended == 0 and outcome(name) == expected:
            equal += 1
        else:
            failures.append((fatal, ended, (folder / f"{name.name}.err").read_text()[-400:]))
        shutil.rmtree(name)
    return {
        "points": points,
        "events of a run": events,
        "kinds": kinds,
        "killed": killed,
        "resumed": resumed,
        "bit-equal": equal,
        "steps trained again, at most": max(lost),
        "seconds to resume and finish, at most": round(max(seconds), 2),
        "failures": failures,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--grace", action="store_true", help="a SIGTERM before each kill")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(chosen.points, Path(scratch), chosen.grace)
    for key, value in result.items():
        print(f"{key:40} {value}")
    sys.exit(result["bit-equal"] != result["points"])
