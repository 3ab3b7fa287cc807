"""What a user gets from a small text in a given time, beside other recipes.

    python benchmarks/own_text.py --size 8 --minutes 10      # an eighth of Shakespeare
    python benchmarks/own_text.py --size 80 --minutes 5 --contenders jielong before
    python benchmarks/own_text.py --contenders nanogpt --threads 1 --rates 1e-3 3e-3

All contenders have the same text, held-out text and time; the table says what each one's user gets,
as `jielong evaluate` measures it.
    jielong   `jielong pretrain --minutes`, which chooses everything
    before    preset `small` without regularisation: weight decay 0.1, no dropout, no noise, as many
              epochs as the time allows, no early stop, the last checkpoint
    adamw     the same code with the usual recipe for small text: AdamW 0.9/0.99, dropout 0.2,
              weight decay 0.1, cosine, the best checkpoint
    nanogpt   nanoGPT's recipe for small text, in plain torch (nanogpt.py)
    trainer   the transformers Trainer with early stopping (hf_trainer.py)
    litgpt    litgpt's pretraining, stopped early, in an environment of its own: `make bench-litgpt`
              makes it (litgpt_pretrain.py)

Of the first three the time is everything from the start of the process. The last three have all of
it for training alone (race.py), the width, layers, vocabulary and window that `jielong` chose,
which therefore comes first, and a run of the whole time for each rate, of which the best counts.

Results are kept after each run, in one file for a text and a time: a contender that runs again
replaces itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import orjson
from common import RESULTS, SCRATCH, as_jsonl, corpus, merge, read_texts, results, split

from jielong.tokenization.tokenizer import train_tokenizer

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
RIVALS = ("nanogpt", "trainer", "litgpt")
RATES = (1e-3, 2e-3, 4e-3)
SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
)  # fmt: skip
CHOICES = (
    "learning_rate", "global_batch_size", "batch_warmup",
    "weight_decay", "dropout", "input_noise", "bpe_dropout",
)  # fmt: skip
HERE = Path(__file__).resolve().parent
LITGPT = HERE.parent / ".venv-litgpt" / "bin" / "python"


def main() -> None:
    arguments = parse()
    name = f"own_text-{arguments.corpus}-{arguments.size}-{arguments.minutes:g}min"
    if arguments.threads:
        name += f"-{arguments.threads}threads"
    folder = SCRATCH / name
    lay_out(arguments.corpus, folder, arguments.size)
    for contender in arguments.contenders:
        for rate, share in tries(contender, arguments):
            key = contender
            if rate is not None:
                key += f" {rate:g}" + (f" in {share:g} of the time" if share != 1 else "")
            if arguments.missing and key in results(name).get("runs", {}):
                continue
            if rate is None:
                flags = ["--minutes", str(arguments.minutes), *FLAGS[contender]]
                kept = "last" if contender == "before" else "best"
                found = run_jielong(folder / contender, folder, flags, arguments.threads, kept)
            else:
                found = run_rival(contender, rate, share, folder, name, arguments)
            record = keep(name, key, found)
            print(key, {k: v for k, v in found.items() if k != "curve"}, flush=True)
            draw(record["curves"], RESULTS / f"{name}.png", name)
    for row in results(name)["table"]:
        print(row)
    for line in at_the_edge(results(name)["runs"]):
        print(line)
    print(RESULTS / f"{name}.json")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus", choices=("shakespeare", "poems", "python", "cpp"), default="shakespeare"
    )
    parser.add_argument(
        "--size", type=int, default=8, help="each how manieth document is trained on"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--contenders", nargs="+", choices=[*FLAGS, *RIVALS])
    parser.add_argument("--rates", nargs="+", type=float, help="peak rates of the last three")
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=[1.0],
        help="of the time, for the last three: less text read, but the rate falls to its end",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="windows, of the last three")
    parser.add_argument("--threads", type=int, help="of each contender; default: all cores")
    parser.add_argument("--missing", action="store_true", help="run only what has no result yet")
    parser.add_argument(
        "--short", action="store_true", help="an eightieth, a minute each, one rate, three of them"
    )
    arguments = parser.parse_args()
    usual = ["jielong", "before", "adamw", "nanogpt", "trainer"]
    if arguments.short:
        arguments.size, arguments.minutes = 80, 1.0
        usual = ["jielong", "nanogpt", "trainer"]
    arguments.contenders = arguments.contenders or usual
    arguments.rates = arguments.rates or (RATES[1:2] if arguments.short else RATES)
    if "litgpt" in arguments.contenders and not LITGPT.exists():
        raise SystemExit("litgpt has an environment of its own: run `make bench-litgpt`")
    return arguments


def tries(contender: str, arguments: argparse.Namespace) -> Iterator[tuple[float | None, float]]:
    """The runs of a contender: rates, and shares of the time in which the rate falls to its end."""
    if contender not in RIVALS:
        yield None, 1.0
        return
    for share in arguments.shares:
        for rate in arguments.rates:
            yield rate, share


def lay_out(name: str, folder: Path, size: int) -> None:
    """Of the text that is not held out, each `size`-th document is trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    train, held_out = split(corpus(name, None))
    for part, documents in (("train", train[::size]), ("held-out", held_out)):
        content = as_jsonl(documents)
        file = folder / f"{part}.jsonl"
        if not file.exists() or file.read_bytes() != content:  # another may be reading it
            temporary = folder / f"{part}.{os.getpid()}"
            temporary.write_bytes(content)
            temporary.replace(file)


def run_jielong(
    out: Path, folder: Path, flags: list[str], threads: int | None, checkpoint: str = "best"
) -> dict[str, Any]:
    """Train in a process of its own: what its user gets, and bits/byte by seconds."""
    shutil.rmtree(out, ignore_errors=True)
    command = ["pretrain", "--json", "--sample-tokens", "0", "--out-dir", str(out), *flags]
    command += ["--data-path", str(folder / "train.jsonl")]
    command += ["--validation-path", str(folder / "held-out.jsonl")]
    started = time.time()
    trained = jielong(command, out.with_suffix(".log"), threads)
    seconds = time.time() - started
    records = map(orjson.loads, (out / "metrics.jsonl").read_bytes().splitlines())
    curve = [
        [round(r["time"] - started, 2), round(r["bits_per_byte"], 5)]
        for r in records
        if r["kind"] == "validation"
    ]
    command = ["evaluate", str(out), "--data-path", str(folder / "held-out.jsonl"), "--json"]
    measured = jielong([*command, "--checkpoint", checkpoint], out.with_suffix(".log"), threads)
    model = trained["choices"]["model"]
    return {
        "bits_per_byte": round(measured["bits_per_byte"], 4),
        "error": round(measured["bits_per_byte_error"], 4),
        "best": round(min(b for _, b in curve), 4),
        "seconds": round(seconds),
        "parameters": trained["parameters"],
        "tokens": trained["tokens"],
        "size": {name: model[name] for name in SIZES}
        | {"window": model["max_position_embeddings"]},
        "teachers": len(list(out.glob("teachers/[0-9]*"))),
        "choices": {name: trained["choices"][name] for name in CHOICES},
        "curve": curve,
    }


def jielong(command: list[str], log: Path, threads: int | None) -> dict[str, Any]:
    """Run a command of ours and read the object that it prints."""
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "jielong", *command],
            stdout=subprocess.PIPE,
            stderr=file,
            env=environment(threads),
        )
    if done.returncode:
        raise SystemExit(f"jielong {command[0]} failed: {log}")
    return json.loads(done.stdout)


def environment(threads: int | None) -> dict[str, str]:
    """The environment of a contender: as it is, or with so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS") if threads else ()
    return os.environ | {name: str(threads) for name in names}


def run_rival(
    contender: str,
    rate: float,
    share: float,
    folder: Path,
    name: str,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Train by another recipe, with the size that ours chose."""
    ours = results(name).get("runs", {}).get("jielong")
    if ours is None:
        raise SystemExit("run the contender jielong first: the others take the size that it chose")
    place = folder / f"{contender}-{rate:g}-{share:g}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for part in ("train", "held-out"):
        shutil.copy(folder / f"{part}.jsonl", place)
    texts = iter(read_texts(place / "train.jsonl"))
    tokenizer = train_tokenizer(texts, ours["size"]["vocab_size"], 2**26)
    tokenizer.save(place / "tokenizer")
    task = {
        "folder": str(place),
        "seconds": 60 * arguments.minutes * share,
        "rate": rate,
        "batch_size": arguments.batch_size,
        **ours["size"],
        "vocab_size": tokenizer.vocab_size,
    }
    (place / "task.json").write_text(json.dumps(task))
    python = LITGPT if contender == "litgpt" else sys.executable
    command = [str(python), "race.py", contender, str(place / "task.json"), str(place / "out.json")]
    log = place / "log.txt"
    with log.open("wb") as file:
        env = environment(arguments.threads)
        if subprocess.run(command, cwd=HERE, stdout=file, stderr=file, env=env).returncode:
            raise SystemExit(f"{contender} failed: {log}")
    found = json.loads((place / "out.json").read_bytes())
    bits = [bits for _, bits in found["curve"]]
    return {
        "bits_per_byte": round(min(bits), 4),
        "end": round(bits[-1], 4),
        "seconds": round(found["curve"][-1][0]),
        "rate": rate,
        **found,
    }


def keep(name: str, key: str, found: dict[str, Any]) -> dict[str, Any]:
    """Write a run's result beside the others'; the table has the best run of each contender."""

    def with_table(record: dict[str, Any]) -> dict[str, Any]:
        runs = record.get("runs", {}) | {key: found}
        best: dict[str, dict[str, Any]] = {}
        for other, run in runs.items():
            contender = other.split()[0]
            if (
                run["bits_per_byte"]
                < best.get(contender, run | {"bits_per_byte": 99})["bits_per_byte"]
            ):
                best[contender] = run
        rows = [
            {"contender": contender} | {k: v for k, v in run.items() if k != "curve"}
            for contender, run in best.items()
        ]
        curves = {contender: run["curve"] for contender, run in best.items()}
        return {"table": rows, "curves": curves, "runs": runs}

    return merge(name, with_table)


def at_the_edge(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Say where the best of several rates is the lowest or the highest that was tried."""
    for contender in RIVALS:
        own = [run for key, run in runs.items() if key.startswith(contender)]
        rates = {run["rate"] for run in own}
        best = min(own, key=lambda run: run["bits_per_byte"])["rate"] if own else None
        if len(rates) > 1 and best in (min(rates), max(rates)):
            yield f"{contender}: {best:g} is the last rate tried on its side; go on with --rates"


def draw(curves: dict[str, list[list[float]]], file: Path, title: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, curve in curves.items():
        seconds, bits = zip(*curve, strict=True)
        axes.plot(seconds, bits, label=name)
        best = min(range(len(bits)), key=bits.__getitem__)
        axes.plot(seconds[best], bits[best], "o", color=axes.lines[-1].get_color())
    lowest = min(min(bits for _, bits in curve) for curve in curves.values())
    axes.set_ylim(lowest - 0.05, lowest + 1.2)
    axes.set(
        xlabel=f"seconds (of {', '.join(RIVALS)}: of training alone)",
        ylabel="held-out bits per byte",
        title=title,
    )
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
