"""`jielong prepare` on Ray: its own memory, its speed with 1 and 2 workers, the same dataset.

python benchmarks/ray_prepare.py              # 80 and 800 MB: poems over and over, with changes
python benchmarks/ray_prepare.py --short      # 8 and 40 MB
python benchmarks/ray_prepare.py --clean      # `jielong clean` instead, exact and near duplicates

Each measurement is a process of its own, in turns. Needs `jielong[ray]`. `Ray` at workers 0 is the
local engine, with as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson
from common import SCRATCH, save

from jielong.api import clean, prepare
from jielong.config.load import load_config
from jielong.data.sources.samples import fetch_sample
from jielong.training.run_tokenizer import train_on_corpus

STORE_BYTES = 200 * 10**6
SAMPLED_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a tenth of the text and less")
    parser.add_argument("--clean", action="store_true", help="measure jielong clean")
    parser.add_argument("--megabytes", type=int, nargs="+", help="sizes of the text")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="0: no Ray")
    parser.add_argument("--turns", type=int, default=1, help="measurements of each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    folder = SCRATCH / "ray_prepare"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = fetch_sample("poems")[0]
    config = load_config(data_path=[str(source)], vocab_size=6400, tokenizer_sample_bytes=2**22)
    tokenizer = None if arguments.clean else str(folder / "tokenizer")
    if tokenizer is not None:
        train_on_corpus(config).save(Path(tokenizer))
    rows = []
    for megabytes in arguments.megabytes or ((8, 40) if arguments.short else (80, 800)):
        text = folder / f"{megabytes}.jsonl"
        repeat_with_changes(source, text, megabytes * 10**6)
        found: dict[int, list[dict[str, Any]]] = {workers: [] for workers in arguments.workers}
        for turn in range(arguments.turns):
            for workers in arguments.workers[:: -1 if turn % 2 else 1]:
                out = folder / f"out-{workers}"
                job = {"text": str(text), "tokenizer": tokenizer}
                found[workers].append(apart(job | {"out": str(out), "workers": workers}))
                shutil.rmtree(out)
        assert len({run["fingerprint"] for runs in found.values() for run in runs}) == 1
        size = text.stat().st_size
        for workers, runs in found.items():
            seconds = statistics.median(run["seconds"] for run in runs)
            rows.append(
                {
                    "text_mb": round(size / 1e6, 1),
                    "workers": workers,
                    "seconds": round(seconds, 1),
                    "all_seconds": [round(run["seconds"], 1) for run in runs],
                    "mb_per_second": round(size / 1e6 / seconds, 2),
                    "start_of_ray_s": round(statistics.median(r["start"] for r in runs), 1),
                    "own_cpu_s": round(statistics.median(r["own_cpu"] for r in runs), 1),
                    "spilled_mb": round(max(r["spilled"] for r in runs) / 1e6),
                    "peak_own_mb": round(max(r["peak_own"] for r in runs) / 1e6),
                    "peak_with_store_mb": round(max(r["peak"] for r in runs) / 1e6),
                }
            )
            print(rows[-1], flush=True)
        text.unlink()
    name = "ray_clean" if arguments.clean else "ray_prepare"
    print(save(f"{name}-short" if arguments.short else name, {"table": rows}))


def repeat_with_changes(source: Path, target: Path, size: int) -> None:
    """`size` bytes of rows of `source`, over and over, with another number in each line."""
    texts = [orjson.loads(line)["text"] for line in source.read_bytes().splitlines()]
    turn = 0
    with target.open("wb") as out:
        while out.tell() < size:
            for text in texts:
                changed = text.replace("\n", f"\n{turn} ") if turn else text
                out.write(orjson.dumps({"text": changed}) + b"\n")
                if out.tell() >= size:
                    break
            turn += 1


def apart(job: dict[str, Any]) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(text: str, tokenizer: str | None, out: str, workers: int) -> dict[str, Any]:
    """Seconds of `prepare`, those in which Ray starts, and peaks of this process in bytes.

    Without a tokenizer it is `clean` that is measured.
    """
    started = time.perf_counter()
    if workers:
        import ray

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        here = {"num_cpus": workers, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        ray.init(address="local", logging_level=logging.ERROR, log_to_driver=False, **here)
    begun, used = time.perf_counter(), time.process_time()
    peak = Peak()
    engine = "ray" if workers else "local"
    if tokenizer is None:
        record = (clean(text, out, engine=engine).folder / "cleaning.json").read_bytes()
        fingerprint = hashlib.sha256(record).hexdigest()  # it has the SHA-256 of each file
    else:
        folder = prepare(text, tokenizer, out, engine=engine).folder
        fingerprint = json.loads((folder / "dataset.json").read_text())["fingerprint"]
    seconds = time.perf_counter() - begun
    return {
        "seconds": seconds,
        "start": begun - started,
        "own_cpu": time.process_time() - used,
        "spilled": peak.spilled,
        "peak_own": peak.own,
        "peak": peak.all,
        "fingerprint": fingerprint,
    }


class Peak:
    """Watches the memory of this process, its own and all, and what Ray has written to disk."""

    def __init__(self) -> None:
        self.own = self.all = self.spilled = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if " kB" in line}
            self.own = max(self.own, kib["RssAnon"] * 1024)
            self.all = max(self.all, kib["VmRSS"] * 1024)
            spilled = Path("/tmp/ray/session_latest").glob("*spill*/**/*")
            self.spilled = max(self.spilled, sum(f.stat().st_size for f in spilled if f.is_file()))
            time.sleep(SAMPLED_S)


if __name__ == "__main__":
    main()
