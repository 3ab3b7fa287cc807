"""Row 16 with several ranks: a gradient that is not finite on one of them is refused by all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from jielong import checkpoint
from jielong.model.weights import load_tensors
from tiny import TINY_RUN, environment, flags
from training.test_distributed import free_port

STEPS, POISONED = 8, 4
# Two runs in a row: in one, rank 1 alone meets NaN in a backward pass; the other leaves that step
# out. Each meets at a port of its own.
CHILD = """
import json, os, sys
import jielong.pretrain
from jielong.cli import main
from jielong.training.step import StepResult
story = sys.modules["jielong.pretrain"]
real, poisoned, nan = story.train_step, int(sys.argv[1]), float("nan")
seen = []

def poisoning(model, *arguments, **options):
    seen.append(1)
    hooks = []
    if len(seen) == poisoned and os.environ["RANK"] == "1":
        hooks = [next(model.parameters()).register_hook(lambda grad: grad * nan)]
    result = real(model, *arguments, **options)
    for hook in hooks:
        hook.remove()
    return result

def omitting(*arguments, **options):
    seen.append(1)
    if len(seen) == poisoned:
        return StepResult(nan, 1, nan, applied=False)
    return real(*arguments, **options)

for step, (port, words) in zip((poisoning, omitting), json.loads(sys.argv[2]), strict=True):
    seen.clear()
    story.train_step, os.environ["MASTER_PORT"] = step, str(port)
    assert main(words) == 0
"""


def test_nan_on_one_rank_changes_nothing_on_any(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": STEPS, "eval_interval": 2, "keep_checkpoints": 9}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    runs = [tmp_path / "poisoned", tmp_path / "omitted"]
    jobs = [(free_port(), ["pretrain", *flags(settings | {"out_dir": run})]) for run in runs]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(POISONED), json.dumps(jobs)],
            env=environment(
                MASTER_ADDR="127.0.0.1", WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank)
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=150)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], said
    assert f"step {POISONED}: loss" in said[0] and said[0].count("update skipped") == 2
    for step in (POISONED, STEPS):
        for file in ("model.safetensors", "optimizer.safetensors"):
            path = Path("checkpoints") / checkpoint.step_name(step) / file
            got, expected = (load_tensors(run / path) for run in runs)
            assert got.keys() == expected.keys()
            assert all((got[name] == expected[name]).all() for name in got), (step, file)
