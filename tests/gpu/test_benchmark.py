"""`benchmarks/gpu.py` without a GPU: its parts, rehearsed, and what it does with crashes.

`python benchmarks/gpu.py --device cpu --quick` rehearses all of it, in a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


QUICK = (
    "environment",
    "attention within documents",
    "fused loss",
    "Muon in bfloat16",
    "grouped products",
    "activation checkpointing",
    "generation with a cache",
    "out of memory",
    "speed tiny 64 jielong",
    "speed tiny 64 plain",
    "one rank of FSDP2",
    "speed tiny 64 jielong DDP",
    "speed tiny 64 jielong FSDP2",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_part_runs_and_what_it_finds_can_be_written(name: str, tmp_path: Path) -> None:
    import gpu_bench
    import gpu_checks
    import gpu_report
    import gpu_speed

    parts = {p.name: p for p in [*gpu_checks.parts(), *gpu_speed.parts(True, "cpu")]}
    part = parts[name]
    result = part.run(gpu_bench.Bench(torch.device("cpu"), True, tmp_path))
    found = {"name": name, "kind": part.kind, "status": "ok", "result": result}
    json.dumps(found)
    report = {"card": "none", "torch": "0", "cuda": None, "parts": [found]}
    assert name.removeprefix("speed ") in gpu_report.table(report)


WORKER = """\
#!{python}
import json, os, signal, sys, time
value = dict(zip(sys.argv[2:], sys.argv[3:]))
with open(value["--results"], "a") as events:
    def tell(**event):
        events.write(json.dumps(event) + "\\n")
        events.flush()
    for name in json.loads(value["--worker"]):
        tell(begin=name)
        if name == "crashes":
            print("an illegal memory access", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "hangs":
            time.sleep(60)
        bad = name == "poisons"
        tell(end=name, status="failed" if bad else "ok", seconds=0.1, error="bad" if bad else None)
        if bad:
            sys.exit({poisoned})
"""


def test_after_a_part_that_crashes_hangs_or_spoils_the_gpu_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_bench

    import gpu

    worker = tmp_path / "worker"
    text = textwrap.dedent(WORKER).format(python=sys.executable, poisoned=gpu.POISONED)
    worker.write_text(text)
    worker.chmod(0o755)
    monkeypatch.setattr(gpu.sys, "executable", str(worker))
    names = ("first", "crashes", "hangs", "poisons", "last")
    parts = [gpu_bench.Part(name, "check", lambda bench: None, timeout=2.0) for name in names]
    arguments = argparse.Namespace(device="cpu", quick=True, minutes=None)
    results: list[dict[str, Any]] = gpu.run_parts(parts, arguments, tmp_path)
    assert [r["name"] for r in results] == list(names)
    assert [r["status"] for r in results] == ["ok", "failed", "failed", "failed", "ok"]
    assert "status -11" in results[1]["error"] and "illegal memory" in results[1]["error"]
    assert "took longer than 2 s" in results[2]["error"]


def test_stand_ins_write_toml_that_reads_back() -> None:
    import tomllib

    import stand_ins

    tables = {"a": {"text": 'say "hi"\n', "n": 3, "x": 0.5, "yes": True, "list": ["p", "q"]}}
    assert tomllib.loads(stand_ins.toml(tables)) == tables
    assert stand_ins.install() == []  # nothing is missing here, and nothing is replaced
