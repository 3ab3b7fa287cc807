"""What `jielong clean` is worth: held-out bits per byte at an equal number of tokens.

    python benchmarks/clean.py              # 2 seeds, 400,000 tokens each: about 5 minutes
    python benchmarks/clean.py --short      # 1 seed, 100,000 tokens

Stopped, it goes on where it was.

Shakespeare in pieces of about 500 tokens. Of the mixed text, 30 % of the documents nearly repeat
another one, as pages of the web do: a few texts often, each time with some words changed. And 10 %
of it are lines of menus and notices that all documents have. The same model is trained on it as it
is, on what `jielong clean --filters default lines` leaves, and on the text before anything was
mixed in. All have the same tokenizer, number of tokens and held-out text, which is of the plays.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from common import SCRATCH, corpus, save

import jielong

COPIES, COPIED = 0.3, 0.03  # share of the documents that are copies, and of those they are made of
BOILERPLATE = 0.1  # of the bytes
MODEL = ["--preset", "small", "--vocab-size", "2048", "--max-seq-len", "256"]
HEADERS = (
    "Home | Plays | Poems | Sonnets | About this site",
    "Read the complete works online for free. Sign up for our weekly letter!",
    "You are here: Home > Library > Classics > Read online",
    "Share this page: Facebook Twitter Pinterest E-mail Print",
)
FOOTERS = (
    "Previous page | Next page | Back to the table of contents",
    "This site uses cookies. By reading on you agree to our terms of use.",
    "Copyright 2020 The Library of Classics. All rights reserved.",
    "Did you like this text? Tell your friends, and leave us a comment below.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--short", action="store_true", help="one seed, a fifth of the tokens")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.tokens, arguments.seeds = 100_000, [1]
    name_of_result = "clean-short" if arguments.short else "clean"
    folder = SCRATCH / name_of_result
    if not (folder / "facts.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found = lay_out(corpus("shakespeare"), folder) | clean(folder)
        jielong.train_tokenizer(folder / "mixed.jsonl", folder / "tokenizer", vocab_size=2048)
        (folder / "facts.json").write_text(json.dumps(found))
    facts = json.loads((folder / "facts.json").read_text())
    print(facts, flush=True)
    table: dict[str, list[float]] = {}
    for name in ("mixed", "cleaned", "plays"):
        for seed in arguments.seeds:
            bits = trained(folder, name, seed, arguments.tokens)
            table.setdefault(name, []).append(round(bits, 4))
            print(name, seed, bits, flush=True)
        result = {"tokens": arguments.tokens, "seeds": arguments.seeds, "text": facts}
        path = save(name_of_result, result | {"table": table})
    print(path)


def lay_out(texts: list[str], folder: Path) -> dict[str, Any]:
    """Write the plays, the mixed text made of them, and the held-out text."""
    rng = random.Random(0)
    held_out = [text for i, text in enumerate(texts) if i % 20 == 7]
    plays = [text for i, text in enumerate(texts) if i % 20 != 7]
    count = round(len(plays) * COPIES / (1 - COPIES))
    sources = rng.sample(plays, round(len(plays) * COPIED))
    copies = [edited(text, rng) for text in rng.choices(sources, k=count)]
    pages = [*plays, *copies]
    rng.shuffle(pages)
    size = sum(map(len, pages)) / len(pages)
    lines = HEADERS + FOOTERS
    each = sum(map(len, lines)) / len(lines) + 1
    wanted = size * BOILERPLATE / (1 - BOILERPLATE) / each  # lines of a page
    mixed = [page_of(text, wanted, rng) for text in pages]
    for name, part in (("plays", plays), ("mixed", mixed), ("held-out", held_out)):
        rows = (orjson.dumps({"text": text}) + b"\n" for text in part)
        (folder / f"{name}.jsonl").write_bytes(b"".join(rows))
    added = sum(map(len, mixed)) - sum(map(len, pages))
    return {
        "documents": len(mixed),
        "copies": count,
        "mb": round(sum(map(len, mixed)) / 1e6, 2),
        "boilerplate": round(added / sum(map(len, mixed)), 3),
    }


def edited(text: str, rng: random.Random) -> str:
    """A copy with one word in a hundred changed, most of them side by side."""
    words = text.split(" ")
    begin = rng.randrange(len(words))
    for place in range(begin, min(begin + len(words) // 100 + 1, len(words))):
        words[place] = rng.choice(words)
    return " ".join(words)


def page_of(text: str, wanted: float, rng: random.Random) -> str:
    """A text with as many lines of boilerplate around it, on average."""
    count = int(wanted) + (rng.random() < wanted % 1)
    above = rng.sample(HEADERS, min(count // 2 + count % 2, len(HEADERS)))
    below = rng.sample(FOOTERS, min(count // 2, len(FOOTERS)))
    return "\n".join([*above, text.strip("\n"), *below]) + "\n"


def clean(folder: Path) -> dict[str, Any]:
    """Clean the mixed text; how long that took, and what it found."""
    started = time.perf_counter()
    report = jielong.clean(folder / "mixed.jsonl", folder / "cleaned", filters=("default", "lines"))
    seconds = time.perf_counter() - started
    print("\n".join(report.lines()), flush=True)
    dropped = sum(account.dropped for account in report.accounts.values())
    return {
        "clean_seconds": round(seconds, 1),
        "dropped": dropped,
        "lines_removed": report.accounts["lines"].rules["lines"],
    }


def trained(folder: Path, name: str, seed: int, tokens: int) -> float:
    """Held-out bits per byte of a model trained on a text."""
    text = folder / "cleaned" if name == "cleaned" else folder / f"{name}.jsonl"
    command = [sys.executable, "-m", "jielong", "pretrain", *MODEL, "--json", "--report", "false"]
    command += ["--tokenizer", str(folder / "tokenizer"), "--data-path", str(text)]
    command += ["--validation-path", str(folder / "held-out.jsonl"), "--sample-tokens", "0"]
    command += ["--tokens", str(tokens), "--seed", str(seed)]
    command += ["--out-dir", str(folder / f"{name}-{seed}")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["bits_per_byte"])


if __name__ == "__main__":
    main()
