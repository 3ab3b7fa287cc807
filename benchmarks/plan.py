"""How near `jielong plan` comes to a run: its time, and its peak memory.

    python benchmarks/plan.py            # the settings of `make demo`
    python benchmarks/plan.py --short    # a fixed small budget: a minute or two

Each plans in one process and trains in another, one after the other, with the same settings. The
time of both is from the start of the command to its end; the peak is the process's resident size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from common import save

DEMO = ["--data-path", "sample:shakespeare", "--minutes", "4"]
SHORT = ["--data-path", "sample:shakespeare", "--preset", "small", "--tokens", "2e5"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a small budget instead of the demo's")
    parser.add_argument("settings", nargs="*", help="settings of `jielong pretrain`, after --")
    arguments = parser.parse_args()
    settings = arguments.settings or (SHORT if arguments.short else DEMO)
    planned, _, _ = measured(["plan", *settings])
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out-dir", f"{folder}/run"]
        result, seconds, peak = measured(["pretrain", *settings, *out])
    expected = planned["time"]
    times = {"planned": sum(expected.values()), "real": seconds}
    memory = {"planned": sum(planned["memory"].values()), "real": peak}
    for name, found, unit, size in (
        ("time", times, "s", 1.0),
        ("peak memory", memory, "MiB", 2.0**20),
    ):
        plan, real = found["planned"] / size, found["real"] / size
        print(f"{name:12} planned {plan:8.1f} {unit}, real {real:8.1f} {unit}: {plan / real:.2f}")
    tokens = {"planned": planned["tokens"], "real": result["tokens"]}
    record = {"settings": settings, "seconds": times, "bytes": memory, "tokens": tokens}
    print(save("plan-short" if settings == SHORT else "plan", record | {"time": expected}))


def measured(words: list[str]) -> tuple[dict, float, int]:
    """The JSON that a command prints, its seconds, and its peak resident size in bytes."""
    command = [sys.executable, "-m", "jielong", *words, "--json"]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)}: exit status {process.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024
    return json.loads(said), time.monotonic() - started, usage.ru_maxrss * scale


if __name__ == "__main__":
    main()
