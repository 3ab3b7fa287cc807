"""What a user gets from a small text in a given time, beside recipes for the same model size.

    python benchmarks/own_text.py --size 8 --minutes 10      # an eighth of Shakespeare
    python benchmarks/own_text.py --size 80 --minutes 5 --contenders jielong before

All contenders have the same text, held-out text and time; the table says what each one's user gets.
    jielong   `jielong pretrain --minutes`, which chooses everything
    before    preset `small` without regularisation: weight decay 0.1, no dropout, no noise, as many
              epochs as the time allows, no early stop, the last checkpoint
    adamw     the usual recipe for small text: AdamW 0.9/0.99, dropout 0.2, weight decay 0.1,
              cosine, the best checkpoint
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import orjson
from common import RESULTS, SCRATCH, corpus, save

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SMALL = ["--preset", "small", "--vocab-size", "4096"]
PLAIN = ["--weight-decay", "0.1", "--input-noise", "0", "--patience", "0"]
FLAGS = {
    "jielong": [],
    "before": [*SMALL, *PLAIN, "--dropout", "0"],
    "adamw": [
        *SMALL, *PLAIN, "--dropout", "0.2", "--optimizer", "adamw", "--beta1", "0.9",
        "--beta2", "0.99", "--schedule", "cosine", "--min-lr-ratio", "0.1",
        "--average-weights", "false", "--batch-warmup", "false",
    ],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus", choices=("shakespeare", "poems", "python"), default="shakespeare"
    )
    parser.add_argument(
        "--size", type=int, default=8, help="each how manieth document is trained on"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--contenders", nargs="+", choices=FLAGS, default=list(FLAGS))
    parser.add_argument("--short", action="store_true", help="an eightieth, a minute each")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.size, arguments.minutes = 80, 1.0
    name = f"own_text-{arguments.corpus}-{arguments.size}-{arguments.minutes:g}min"
    folder = SCRATCH / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lay_out(corpus(arguments.corpus, None), folder, arguments.size)
    rows, curves = [], {}
    for contender in arguments.contenders:
        row, curves[contender] = run(contender, folder, arguments.minutes)
        rows.append(row)
        print(row, flush=True)
    draw(curves, RESULTS / f"{name}.png", name)
    print(save(name, {"table": rows, "curves": curves}))


def lay_out(texts: list[str], folder: Path, size: int) -> None:
    """One document in 50 is held out; of the rest each `size`-th is trained on."""
    train = [text for i, text in enumerate(texts) if i % 50 != 7][::size]
    held_out = [text for i, text in enumerate(texts) if i % 50 == 7]
    for name, part in (("train", train), ("held-out", held_out)):
        lines = (orjson.dumps({"text": text}) + b"\n" for text in part)
        (folder / f"{name}.jsonl").write_bytes(b"".join(lines))


def run(contender: str, folder: Path, minutes: float) -> tuple[dict[str, Any], list[list[float]]]:
    """Train in a process of its own; returns what its user gets, and bits/byte by seconds."""
    out = folder / contender
    command = [sys.executable, "-m", "jielong", "pretrain", "--minutes", str(minutes), "--json"]
    command += ["--data-path", str(folder / "train.jsonl"), "--out-dir", str(out)]
    command += ["--validation-path", str(folder / "held-out.jsonl"), "--sample-tokens", "0"]
    started = time.time()
    done = subprocess.run([*command, *FLAGS[contender]], check=True, capture_output=True, text=True)
    seconds = time.time() - started
    found = json.loads(done.stdout)
    records = map(orjson.loads, (out / "metrics.jsonl").read_bytes().splitlines())
    curve = [
        [r["time"] - started, r["bits_per_byte"]] for r in records if r["kind"] == "validation"
    ]
    bits = curve[-1][1] if contender == "before" else found["bits_per_byte"]
    row = {
        "contender": contender,
        "bits_per_byte": round(bits, 4),
        "best": round(min(b for _, b in curve), 4),
        "seconds": round(seconds),
        "parameters": found["parameters"],
        "tokens": found["tokens"],
    }
    return row, curve


def draw(curves: dict[str, list[list[float]]], file: Path, title: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, curve in curves.items():
        seconds, bits = zip(*curve, strict=True)
        axes.plot(seconds, bits, label=name)
        best = min(range(len(bits)), key=bits.__getitem__)
        axes.plot(seconds[best], bits[best], "o", color=axes.lines[-1].get_color())
    lowest = min(min(bits for _, bits in curve) for curve in curves.values())
    axes.set_ylim(lowest - 0.05, lowest + 1.2)
    axes.set(xlabel="seconds, everything counted", ylabel="held-out bits per byte", title=title)
    axes.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
