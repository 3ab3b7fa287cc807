"""What the order of `--shuffle-shards` costs: held-out bits per byte beside the default order.

    python benchmarks/shard_order.py              # 3 texts, 2 seeds, 3 orders: half an hour
    python benchmarks/shard_order.py --short      # Shakespeare, 1 seed

Stopped, it goes on where it was.

Each text is spread over the whole of its corpus and stays in its order (by play, by dynasty, by
module of Python's library), so that its 16 shards differ as much as they can. It is read once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import orjson
from common import SCRATCH, corpus, merge

import jielong
from jielong.data.shard_writer import ShardWriter
from jielong.data.shards import open_dataset

TEXTS = ("shakespeare", "poems", "python")
SHARDS = 16
ORDERS: dict[str, list[str]] = {
    "all": [],
    "blocks of 4": ["--shuffle-shards", "4"],
    "blocks of 1": ["--shuffle-shards", "1"],
}
MODEL = ["--preset", "small", "--vocab-size", "2048", "--max-seq-len", "256"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", nargs="+", default=TEXTS, choices=TEXTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--bytes", type=int, default=800_000, help="of each text")
    parser.add_argument("--short", action="store_true", help="Shakespeare, 1 seed")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.texts, arguments.seeds = ["shakespeare"], [1]
    name = "shard_order-short" if arguments.short else "shard_order"
    for text in arguments.texts:
        folder = SCRATCH / "shard_order" / f"{text}-{arguments.bytes}"
        if not (folder / "prepared").exists():
            lay_out(text, arguments.bytes, folder)
        tokens = len(open_dataset(folder / "prepared").train)
        for seed in arguments.seeds:
            for order in ORDERS:
                bits = round(trained(folder, order, seed), 4)
                print(text, tokens, seed, order, bits, flush=True)
                row = {f"{text}, seed {seed}, {order}": bits}
                merge(name, lambda known, row=row: {"bits": known.get("bits", {}) | row})


def lay_out(name: str, size: int, folder: Path) -> None:
    """Write a text, what is held out of it, a tokenizer, and the dataset in shards."""
    texts = corpus(name)
    texts = texts[:: max(1, sum(len(text.encode()) for text in texts) // size)]
    folder.mkdir(parents=True, exist_ok=True)
    for part, is_part in (("text", False), ("held-out", True)):
        rows = [orjson.dumps({"text": t}) for i, t in enumerate(texts) if (i % 15 == 7) is is_part]
        (folder / f"{part}.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    if not (folder / "tokenizer").exists():
        jielong.train_tokenizer(folder / "text.jsonl", folder / "tokenizer", vocab_size=2048)
    settings = {"validation_path": (str(folder / "held-out.jsonl"),)}

    def prepare(out: str) -> int:
        jielong.prepare(folder / "text.jsonl", folder / "tokenizer", folder / out, **settings)
        return len(open_dataset(folder / out).train)

    each = -(-prepare("whole") // SHARDS)
    with patch.object(ShardWriter.__init__, "__defaults__", (each,)):
        prepare("prepared")


def trained(folder: Path, order: str, seed: int) -> float:
    """Held-out bits per byte of a model that has read the text once, in an order."""
    command = [sys.executable, "-m", "jielong", "pretrain", *MODEL, "--json", "--report", "false"]
    command += ["--data-path", str(folder / "prepared"), "--epochs", "1", "--sample-tokens", "0"]
    command += ["--seed", str(seed), *ORDERS[order]]
    command += ["--out-dir", str(folder / f"{order.replace(' ', '-')}-{seed}")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["bits_per_byte"])


if __name__ == "__main__":
    main()
