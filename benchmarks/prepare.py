"""Speed and memory of `jielong prepare`: megabytes of text a second, peak at two corpus sizes.

python benchmarks/prepare.py              # 80 and 800 MB of poems
python benchmarks/prepare.py --short      # 8 and 40 MB
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import SCRATCH, save

from jielong.config.load import load_config
from jielong.data.sources.samples import fetch_sample
from jielong.training.run_tokenizer import train_on_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", choices=("poems", "shakespeare"), default="poems")
    parser.add_argument("--short", action="store_true", help="a tenth of the text and less")
    arguments = parser.parse_args()
    folder = SCRATCH / "prepare"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = fetch_sample(arguments.corpus)[0]
    config = load_config(data_path=[str(source)], vocab_size=6400, tokenizer_sample_bytes=2**22)
    train_on_corpus(config).save(folder / "tokenizer")
    rows = []
    for megabytes in (8, 40) if arguments.short else (80, 800):
        text = folder / f"{megabytes}.jsonl"
        repeat(source, text, megabytes * 10**6)
        seconds, peak = timed(text, folder / "tokenizer", folder / f"out-{megabytes}")
        size = text.stat().st_size
        rows.append(
            {
                "text_mb": round(size / 1e6, 1),
                "seconds": round(seconds, 1),
                "mb_per_second": round(size / 1e6 / seconds, 2),
                "peak_mb": round(peak / 1e6),
            }
        )
        print(rows[-1], flush=True)
        text.unlink()
        shutil.rmtree(folder / f"out-{megabytes}")
    name = "prepare-short" if arguments.short else "prepare"
    print(save(name, {"corpus": arguments.corpus, "table": rows}))


def repeat(source: Path, target: Path, size: int) -> None:
    """`size` bytes of whole lines of `source`, over and over."""
    with target.open("wb") as out:
        while out.tell() < size:
            with source.open("rb") as lines:
                for line in lines:
                    out.write(line)
                    if out.tell() >= size:
                        break


def timed(text: Path, tokenizer: Path, out: Path) -> tuple[float, int]:
    """Seconds and peak bytes of the command, the start of Python included."""
    command = [sys.executable, "-m", "jielong", "prepare", "--data-path", str(text)]
    command += ["--tokenizer", str(tokenizer), "--out-dir", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"jielong prepare failed with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
