"""The script that our users come from, itself: `trainer/train_pretrain.py` of a checkout.

Nothing of it is changed. It reads `../model` for a tokenizer and writes `../checkpoints`, so it is
run in a folder beside which our tokenizer lies. What it saves now and then is copied and measured
after it has ended.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from common import Logits
from torch import nn

SAVES, LOGS = 8, 100  # of a run
STEP = re.compile(r"Epoch:\[1/1\]\((\d+)/(\d+)\)")
NEEDED = ("datasets", "transformers")


def missing(checkout: Path | None) -> str | None:
    """Why the script cannot run, if it cannot."""
    if checkout is None:
        return "give --script DIR, a checkout of MiniMind"
    if not (checkout / "trainer" / "train_pretrain.py").is_file():
        return f"there is no trainer/train_pretrain.py in {checkout}"
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"it needs {' and '.join(absent)}: pip install {' '.join(absent)}" if absent else None


def train(
    checkout: Path,
    place: Path,
    tokenizer: Path,
    data: Path,
    documents: int,
    flags: dict[str, str],
) -> list[tuple[float, Path]]:
    """Run one epoch; seconds of training, and the weights that it had saved by then.

    The seconds are those of its steps alone, without its start and its saves: from the pace between
    its log lines.

    Args:
        place: a new folder, for all that it reads and writes.
        flags: of the script, over those that are always given.
    """
    for name in ("trainer", "out", "checkpoints"):
        (place / name).mkdir(parents=True)
    shutil.copytree(tokenizer, place / "model")
    steps = math.ceil(documents / int(flags["batch_size"]))
    given = {
        "data_path": str(data),
        "epochs": "1",
        "accumulation_steps": "1",  # its default of 8 gives too few updates here
        "device": "cpu",
        "num_workers": "1",
        "log_interval": str(max(1, steps // LOGS)),
        "save_interval": str(max(1, steps // SAVES)),
        **flags,
    }
    command = [sys.executable, "-u", str(checkout.resolve() / "trainer" / "train_pretrain.py")]
    command += [part for name, value in given.items() for part in (f"--{name}", value)]
    env = os.environ | {"HF_DATASETS_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    log = place / "log.txt"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=place / "trainer",
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        times, saved = _follow(process, place, int(given["hidden_size"]))
    if process.wait():
        raise SystemExit(f"the script failed: {log}")
    by_step = {torch.load(file)["step"]: file for file in saved}
    a_step = seconds_of_a_step(times, set(by_step))
    return [(step * a_step, file) for step, file in by_step.items()]


def seconds_of_a_step(times: list[tuple[int, float]], saved: set[int]) -> float:
    """The mean between log lines (step, seconds) of which no save comes between."""
    spans = [
        (step - before, seconds - begun)
        for (before, begun), (step, seconds) in pairwise(times)
        if saved.isdisjoint(range(before, step))
    ]
    return sum(seconds for _, seconds in spans) / sum(steps for steps, _ in spans)


def _follow(
    process: subprocess.Popen[str], place: Path, hidden_size: int
) -> tuple[list[tuple[int, float]], list[Path]]:
    """When each step was logged, and copies of what was saved, looked for with each log line."""
    newest = place / "checkpoints" / f"pretrain_{hidden_size}_resume.pth"  # replaced atomically
    times: list[tuple[int, float]] = []
    saved: list[Path] = []
    before = 0

    def look() -> None:
        nonlocal before
        if newest.exists() and (changed := newest.stat().st_mtime_ns) != before:
            before = changed
            saved.append(place / f"saved-{len(saved)}.pth")
            shutil.copy(newest, saved[-1])

    assert process.stdout is not None
    for line in process.stdout:
        if found := STEP.search(line):
            times.append((int(found[1]), time.perf_counter()))
            look()
    process.wait()
    look()
    return times, saved


def load(checkout: Path, file: Path, hidden_size: int, layers: int) -> nn.Module:
    """The script's own model with saved weights: tokens (B, T) to logits (B, T, V)."""
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    from model.model_minimind import MiniMindConfig, MiniMindForCausalLM

    model = MiniMindForCausalLM(MiniMindConfig(hidden_size=hidden_size, num_hidden_layers=layers))
    model.load_state_dict({k: v.float() for k, v in torch.load(file)["model"].items()})
    return Logits(model.float())
