"""A long run of a tiny model: memory, open files and the time of a step must stay flat.

    python tests/faults/health.py --steps 2000

The first half is left out: caches fill there, and the allocator learns its sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jielong.tokenization.tokenizer import train_tokenizer
from tiny import TEXTS, TINY_RUN, environment, flags

PAGE = os.sysconf("SC_PAGE_SIZE")


def sample(pid: int) -> tuple[int, int] | None:
    """Resident bytes and open files of a process; none once it has ended."""
    with contextlib.suppress(OSError):
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE, files
    return None


def measure(steps: int, folder: Path) -> dict[str, Any]:
    """What a run of `steps` holds; validations and checkpoints fall every 50 steps."""
    corpus, tokenizer = folder / "corpus.jsonl", folder / "tokenizer"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    train_tokenizer(TEXTS, 288, 2**20).save(tokenizer)
    settings = TINY_RUN | {"steps": steps, "eval_interval": 50, "sample_tokens": 4}
    settings |= {"data_path": corpus, "tokenizer": tokenizer, "out_dir": folder / "run"}
    with (folder / "said").open("w") as said:  # a pipe nobody reads would fill up and stop it
        process = subprocess.Popen(
            [sys.executable, "-m", "jielong", "pretrain", *flags(settings)],
            env=environment(),
            stdout=said,
            stderr=said,
        )
    metrics = folder / "run" / "metrics.jsonl"
    points: list[tuple[int, int, int]] = []  # step, bytes, files
    while process.poll() is None:
        done = metrics.read_bytes().count(b'"train"') if metrics.exists() else 0
        seen = sample(process.pid)
        if seen and steps // 2 <= done < steps:
            points.append((done, *seen))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError((folder / "said").read_text())
    at, held, files = zip(*points, strict=True)
    third = len(points) // 3
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    pace = [r["tokens_per_second"] for r in records if r["kind"] == "train"][steps // 2 :]
    return {
        "steps": steps,
        "samples": len(points),
        "resident at the end, MiB": round(held[-1] / 2**20, 1),
        "growth, bytes a step": round(statistics.linear_regression(at, held).slope, 1),
        # the median: a file that is just being saved may be open at one sample and not at another
        "open files, mostly, in the first third": statistics.median(files[:third]),
        "open files, mostly, in the last third": statistics.median(files[-third:]),
        "pace of the last quarter over the third": round(
            statistics.median(pace[len(pace) // 2 :]) / statistics.median(pace[: len(pace) // 2]),
            3,
        ),
    }


def is_healthy(result: dict[str, Any], bytes_a_step: float) -> bool:
    """Whether memory and open files are flat; the pace of a shared machine decides nothing."""
    first, last = (result[f"open files, mostly, in the {x} third"] for x in ("first", "last"))
    return bool(result["growth, bytes a step"] < bytes_a_step and last <= first)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(parser.parse_args().steps, Path(scratch))
    for key, value in result.items():
        print(f"{key:40} {value}")
    sys.exit(not is_healthy(result, bytes_a_step=512))
