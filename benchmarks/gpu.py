"""Prove and measure jielong on a GPU, with one command.

    PYTHONPATH=src python benchmarks/gpu.py            # under 8 minutes
    PYTHONPATH=src python benchmarks/gpu.py --quick    # under 2 minutes
    PYTHONPATH=src python benchmarks/gpu.py --device cpu --quick   # a rehearsal with tiny sizes

Nothing need be installed but torch, numpy, safetensors, tokenizers, filelock (which comes with
torch) and rich; transformers is compared with where it is there. Each part runs by itself: one that
fails is named with the end of its traceback, and the next begins. Parts share a process; after an
error that leaves the GPU unusable, or a part that hangs, the rest run in a new one.

It prints a table, writes one JSON file, and exits with status 1 if a check failed.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import stand_ins  # noqa: E402

STAND_INS = stand_ins.install()

import torch  # noqa: E402
from gpu_bench import Bench, Part, SkipPart  # noqa: E402

MINUTES, QUICK_MINUTES = 7.5, 1.8
ERROR_LINES = 12  # of the end of a traceback
# of workers: NCCL and gloo talk to one process alone, and deterministic products need the last
ENVIRONMENT = {
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
POISONED = 3  # exit status of a worker whose GPU does not answer


def main() -> int:
    arguments = parse()
    if arguments.run:
        from gpu_checks import run_child

        return run_child(json.loads(Path(arguments.run).read_text()))
    if arguments.worker is not None:
        return work(arguments)
    started = time.time()
    parts = chosen_parts(arguments)
    with tempfile.TemporaryDirectory(prefix="jielong-gpu-") as scratch:
        results = run_parts(parts, arguments, Path(scratch))
    report = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(sys.argv),
        "card": card(arguments.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "stand_ins": STAND_INS,
        "seconds": round(time.time() - started, 1),
        "parts": results,
    }
    path = arguments.out or HERE / "results" / f"gpu-{slug(report['card'])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    from gpu_report import table

    print(table(report))
    print(path)
    return int(any(r["kind"] == "check" and r["status"] == "failed" for r in results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer measures: under 2 minutes")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts whose names begin so")
    parser.add_argument("--list", action="store_true", help="print the parts' names")
    parser.add_argument("--minutes", type=float, help="after which no measure begins")
    parser.add_argument("--out", type=Path, help="the JSON; default results/gpu-CARD.json")
    for name in ("worker", "results", "deadline", "run"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "torch sees no GPU here; --device cpu rehearses with tiny sizes\n")
    if arguments.list:
        parser.exit(0, "".join(f"{p.kind:8}{p.name}\n" for p in chosen_parts(arguments)))
    return arguments


def chosen_parts(arguments: argparse.Namespace) -> list[Part]:
    import gpu_checks
    import gpu_speed

    checks, slow = gpu_checks.parts(), gpu_checks.slow_parts()
    speeds = gpu_speed.parts(arguments.quick, arguments.device)
    compiled = [p for p in speeds if "compiled" in p.name]
    if arguments.quick:  # the time ends while the last of them compile
        parts = [*checks, *(p for p in speeds if p not in compiled), *slow, *compiled]
    else:
        parts = [*checks, *slow, *speeds]
    if arguments.only:
        parts = [p for p in parts if p.name.startswith(tuple(arguments.only))]
    return parts


def card(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu {platform.machine()}"


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


# ── the driver: one process for all parts, as long as it answers


def run_parts(parts: list[Part], arguments: argparse.Namespace, scratch: Path) -> list[dict]:
    """Run all parts in worker processes; return their results in order."""
    minutes = arguments.minutes or (QUICK_MINUTES if arguments.quick else MINUTES)
    if arguments.device == "cpu" and not arguments.minutes:
        minutes = 60.0  # a rehearsal runs everything
    deadline = time.time() + 60 * minutes
    done: dict[str, dict[str, Any]] = {}
    while left := [p for p in parts if p.name not in done]:
        events, log = scratch / "events.jsonl", scratch / "log.txt"
        events.write_text("")
        command = [sys.executable, str(Path(__file__).resolve()), "--device", arguments.device]
        command += ["--worker", json.dumps([p.name for p in left]), "--results", str(events)]
        command += ["--deadline", str(deadline)] + ["--quick"] * arguments.quick
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=ENVIRONMENT | os.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                problem = watch(process, left, events, done)
            finally:
                end(process)
        if problem:
            unfinished = [p for p in left if p.name not in done]
            broken = unfinished[0] if unfinished else left[-1]
            tail = log.read_text(errors="replace").splitlines()[-ERROR_LINES:]
            record(done, broken, "failed", error="\n".join([problem, *tail]))
    return [done[p.name] for p in parts]


def watch(
    process: subprocess.Popen, left: list[Part], events: Path, done: dict[str, dict]
) -> str | None:
    """Collect a worker's results until it ends, or a part takes too long; return what is wrong."""
    by_name = {p.name: p for p in left}
    seen, current, since = 0, None, time.time()
    while True:
        ended = process.poll() is not None
        lines = events.read_text().split("\n")[:-1]  # whole lines alone
        for event in map(json.loads, lines[seen:]):
            if "begin" in event:
                current, since = by_name[event["begin"]], time.time()
            else:
                part = by_name[event.pop("end")]
                record(done, part, **event)
                current, since = None, time.time()
        seen = len(lines)
        if ended:
            unfinished = any(p.name not in done for p in left)
            if not unfinished or process.returncode == POISONED:
                return None
            return f"the process ended with status {process.returncode}"
        limit = current.timeout if current else 120  # to start
        if time.time() - since > limit:
            return f"took longer than {limit:g} s"
        time.sleep(0.1)


def end(process: subprocess.Popen) -> None:
    """End a worker with all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def record(done: dict[str, dict], part: Part, status: str, **values: Any) -> None:
    done[part.name] = {"name": part.name, "kind": part.kind, "status": status, **values}
    seconds = f"{values['seconds']:6.1f} s" if "seconds" in values else ""
    print(f"{status:8}{part.name:40}{seconds}", flush=True)
    if status == "failed":
        print("    " + values.get("error", "").replace("\n", "\n    "), flush=True)


# ── a worker: some parts, one after another


def work(arguments: argparse.Namespace) -> int:
    """Run the named parts; write an event as each begins and ends."""
    parts = {p.name: p for p in chosen_parts(arguments)}
    with (
        tempfile.TemporaryDirectory(prefix="jielong-gpu-") as scratch,
        Path(arguments.results).open("a") as events,
    ):

        def tell(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        for number, name in enumerate(json.loads(arguments.worker)):
            part = parts[name]
            tell(begin=name)
            optional = part.kind == "measure" or (arguments.quick and part.may_be_left_out)
            if optional and time.time() + part.seconds > float(arguments.deadline):
                tell(end=name, status="skipped", error="no time left")
                continue
            folder = Path(scratch) / str(number)
            folder.mkdir()
            bench = Bench(torch.device(arguments.device), arguments.quick, folder)
            started = time.perf_counter()
            try:
                result, status, error = part.run(bench), "ok", None
            except SkipPart as reason:
                result, status, error = None, "skipped", str(reason)
            except BaseException:
                result, status = None, "failed"
                error = "\n".join(traceback.format_exc().rstrip().splitlines()[-ERROR_LINES:])
            seconds = round(time.perf_counter() - started, 2)
            tell(end=name, status=status, seconds=seconds, result=result, error=error)
            if not clean_up(arguments.device):
                os._exit(POISONED)  # the rest run in another process
    return 0


def clean_up(device: str) -> bool:
    """Free what a part has held; return whether the GPU still answers."""
    gc.collect()
    if device != "cuda":
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.zeros(1, device="cuda").add_(1).cpu()
    except Exception:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
