"""How long a checkpoint holds up training: written in the background, or at once.

    python benchmarks/saving.py                # 89M parameters, AdamW: 1.4 GB a checkpoint
    python benchmarks/saving.py --layers 2     # a quick look

Both ways are real runs, in turns. Between two checkpoints there is time for the first to be
written, as there is in a run that saves every few minutes. The first of a run is left out of the
medians, since the memory that its copy takes is new.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]
EVERY = 2  # steps between checkpoints
WAYS = {"in the background": True, "at once": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(work(json.loads(arguments.job))))
        return
    from common import SCRATCH, save
    from gpu_bench import corpus

    folder = SCRATCH / "saving"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    corpus(folder)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for _ in range(arguments.turns):
        for name, background in WAYS.items():
            case = {"background": background, "layers": arguments.layers, "saves": arguments.saves}
            row = launch(case | {"folder": str(folder)})
            found[name].append(row)
            seconds = ", ".join(f"{s:.2f}" for s in row["pauses_s"])
            print(f"{name:20}held up for {seconds} s; a step {row['step_s']:.2f} s", flush=True)
    first = found["at once"][0]
    print(
        f"{first['parameters'] / 1e6:.0f}M parameters, {first['bytes'] / 1e9:.2f} GB a checkpoint"
    )
    pauses = {
        name: [s for row in rows for s in row["pauses_s"][1:]] for name, rows in found.items()
    }
    for name, seconds in pauses.items():
        middle, least = median(seconds), min(seconds)
        print(f"{name:20}{middle:8.2f} s, the median of {len(seconds)}; the least {least:.2f}")
    saved = 1 - median(pauses["in the background"]) / median(pauses["at once"])
    print(f"the background saves {100 * saved:.1f} % of the pause")
    shutil.rmtree(folder)
    print(save("saving", {"rows": found, "saved": saved}))


def launch(case: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def work(case: dict[str, Any]) -> dict[str, Any]:
    """A run whose saves are timed."""
    from jielong.api import pretrain
    from jielong.training import after_step
    from jielong.training import pretrain as loop
    from jielong.training.state import TrainState
    from jielong.training.step import TrainStep

    save, step = loop.save_checkpoint_or_warn, TrainStep.__call__
    pauses, steps, parameters = [], [], 0

    def timed_save(state: TrainState, last: bool) -> None:
        nonlocal parameters
        parameters = state.model.num_parameters()
        state.saving.rest()  # the one before has been written, as if long ago
        started = time.perf_counter()
        save(state, last)
        if not last:  # which waits until all is written
            pauses.append(time.perf_counter() - started)

    def timed_step(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = step(*arguments, **options)
        steps.append(time.perf_counter() - started)
        return result

    loop.save_checkpoint_or_warn = after_step.save_checkpoint_or_warn = timed_save  # type: ignore
    TrainStep.__call__ = timed_step  # type: ignore
    folder = Path(case["folder"])
    run = folder / "run"
    total = EVERY * (case["saves"] + 1)
    shutil.rmtree(run, ignore_errors=True)
    settings = {"preset": "base", "num_hidden_layers": case["layers"], "optimizer": "adamw"}
    settings |= {"dtype": "float32", "device": "cpu", "max_seq_len": 16, "batch_size": 1}
    settings |= {"steps": total, "eval_interval": total, "save_interval": EVERY, "report": False}
    settings |= {"keep_checkpoints": 1, "background_saves": case["background"], "sample_tokens": 0}
    settings |= {"data_path": str(folder / "corpus.jsonl"), "out_dir": str(run)}
    pretrain(settings, quiet=True)
    newest = max((run / "checkpoints").glob("step-*"))
    size = sum(path.stat().st_size for path in newest.iterdir())
    return {
        "pauses_s": pauses,
        "step_s": median(steps),
        "parameters": parameters,
        "bytes": size,
    }


if __name__ == "__main__":
    main()
