"""Kills runs at points spread over training and saving, resumes them, compares with one left alone.

    python tests/faults/kill_points.py --points 200 [--grace | --ranks 2]

With --grace each run has had a SIGTERM some events before it is killed. With --ranks a run is of
several processes that each keep a part of the model and write a part of each checkpoint; one is
killed, and the others after it. A point is the n-th event
of a run: a training step, a file written (killed half-way), an fsync, or a rename. Each run is a
fork of this process, which has imported everything but never
trained, so a point costs a second and not the start of Python.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
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

from forked import PRELOADED
from jielong.checkpoint import checkpoint, weights
from jielong.cli.main import main
from jielong.tokenization.tokenizer import train_tokenizer
from jielong.training.step import TrainStep
from tiny import TEXTS, TINY_RUN, flags
from training.test_distributed import free_port

torch.set_num_threads(1)
SETTINGS = TINY_RUN | {"steps": 12, "save_interval": 2, "eval_interval": 4, "num_workers": 0}
# of several processes
DIVIDED = SETTINGS | {"steps": 8, "parallel": "fsdp", "checkpoint_format": "sharded"}


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
    ranks: int = 1,
    mortal: int = 0,
) -> int:
    """A run in forked processes; rank `mortal` is killed at event `fatal`, warned `grace` before.

    Returns:
        The status of the first that ended in another way than by success, or success.
    """
    port, children = free_port(), set[int]()
    for rank in range(ranks):
        child = os.fork()
        if child:
            children.add(child)
            continue
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(os.open(folder.parent / f"{folder.name}.err", os.O_WRONLY | os.O_CREAT), 2)
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in names.items()}
        os.environ["MASTER_ADDR"] = "127.0.0.1"
        events = Events(fatal if rank == mortal else None, grace)
        events.install()
        places = {"data_path": corpus, "tokenizer": tokenizer, "out_dir": folder}
        status = main(["pretrain", *flags(settings_of(ranks) | places)])
        counted = folder.parent / f"events-{rank}.json"
        counted.write_text(json.dumps([events.count, events.kinds]))
        os._exit(status)
    first = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not first:
            first = status
            for other in children:
                os.kill(other, signal.SIGKILL)
    return first


def settings_of(ranks: int) -> dict[str, Any]:
    return SETTINGS if ranks == 1 else DIVIDED


def outcome(folder: Path, ranks: int) -> tuple[Any, ...]:
    """What must be equal to the bit: weights, optimizer, and each step's loss."""
    last = folder / "checkpoints" / checkpoint.step_name(settings_of(ranks)["steps"])
    files = sorted(last.glob("*.safetensors"))
    assert len(files) == (3 if ranks == 1 else ranks)
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return (*sums, [(r["step"], r["loss"]) for r in records if r["kind"] == "train"])


def measure(points: int, folder: Path, grace: bool = False, ranks: int = 1) -> dict[str, Any]:
    """Survival and bit-equality over `points` kills, evenly spread over a run's events.

    After a SIGTERM a run may end before it would have been killed: `killed` tells how many were.
    """
    corpus, tokenizer = folder / "corpus.jsonl", folder / "tokenizer"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    train_tokenizer(TEXTS, 288, 2**20).save(tokenizer)
    status = run(folder / "whole", corpus, tokenizer, ranks=ranks)
    assert status == 0, (folder / "whole.err").read_text()
    expected = outcome(folder / "whole", ranks)
    counted = [json.loads((folder / f"events-{rank}.json").read_text()) for rank in range(ranks)]
    killed = resumed = equal = 0
    lost, seconds, failures = [], [], []
    for n in range(points):
        rank = n % ranks
        fatal = n * counted[rank][0] // points
        name = folder / f"killed-{n}"
        shutil.copytree(folder / "whole" / "data", name / "data")  # preparing has its own test
        shutil.copy(folder / "whole" / "config.toml", name)
        warned = 1 + n % 9 if grace else None
        killed += run(name, corpus, tokenizer, fatal, warned, ranks, rank) == signal.SIGKILL
        newest, _ = checkpoint.latest_valid_checkpoint(name / "checkpoints")
        done = (name / "metrics.jsonl").read_bytes().count(b'"train"')
        lost.append(max(0, done - (checkpoint.step_of(newest) if newest else 0)))
        started = time.perf_counter()
        ended = run(name, corpus, tokenizer, ranks=ranks)
        seconds.append(time.perf_counter() - started)
        resumed += ended == 0
        if ended == 0 and outcome(name, ranks) == expected:
            equal += 1
        else:
            failures.append((fatal, ended, (folder / f"{name.name}.err").read_text()[-400:]))
        shutil.rmtree(name)
    return {
        "points": points,
        "events of a run": [events for events, _ in counted],
        "kinds": [kinds for _, kinds in counted],
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
    parser.add_argument("--ranks", type=int, default=1, help="processes with a part each")
    chosen = parser.parse_args()
    for module in PRELOADED:  # by this process, so that its forks need not
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(chosen.points, Path(scratch), chosen.grace, chosen.ranks)
    for key, value in result.items():
        print(f"{key:40} {value}")
    sys.exit(result["bit-equal"] != result["points"])
