"""What several processes cost on one machine: time, memory and bytes sent, by how they share work.

    python benchmarks/processes.py                # 1 × 2 threads, 2 × 1 thread, in turns; by kind
    python benchmarks/processes.py --count        # bytes and memory with 1, 2 and 4 processes

Gloo between processes of one machine: what is sent never leaves its memory, so the bytes hold for
any network and the times for none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"hidden_size": 256, "num_hidden_layers": 6, "vocab_size": 4096},
    "mixture": {
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "vocab_size": 4096,
        "use_moe": True,
        "num_experts": 4,
        "num_experts_per_tok": 1,
    },
}
WINDOW, ROWS, MICRO = 256, 16, 8  # tokens of a window, windows of an update and of a pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", action="store_true", help="count bytes and memory, time nothing")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(work(json.loads(arguments.job))))
        return
    from common import save

    if arguments.count:
        cases = [
            {"model": model, "kind": kind, "processes": n, "steps": 2, "threads": 1, **more}
            for model in MODELS
            for n, kind, more in (
                (1, "ddp", {}),
                (2, "ddp", {}),
                (2, "fsdp", {}),
                (2, "fsdp", {"at_once": True}),
                (4, "fsdp", {}),
                (4, "fsdp", {"degree": 2}),
            )
        ]
        rows = []
        for case in cases:
            rows.append({**case, "ranks": launch(case)})
            print(told(rows[-1]), flush=True)
        print(save("processes-count", {"rows": rows}))
        return
    kinds = [(1, 2, "ddp"), (2, 1, "ddp"), (2, 1, "fsdp")]
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.turns):
        for processes, threads, kind in kinds:
            case = {"model": "dense", "kind": kind, "processes": processes, "threads": threads}
            ranks = launch(case | {"steps": arguments.steps})
            name = f"{processes} × {threads} {kind if processes > 1 else 'alone'}"
            seconds.setdefault(name, []).append(ranks[0]["step_s"])
            print(f"{name:12}{ranks[0]['step_s']:8.3f} s a step", flush=True)
    middle = {name: median(values) for name, values in seconds.items()}
    alone = middle["1 × 2 alone"]
    for name, value in middle.items():
        print(f"{name:12}{alone / value:8.2f} of the speed of one process with two threads")
    print(
        save("processes", {"seconds": seconds, "ratio": {n: alone / v for n, v in middle.items()}})
    )


def launch(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a case in as many processes as it has; return what each found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    n = case["processes"]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    variables |= {"OMP_NUM_THREADS": str(case["threads"]), "LOCAL_WORLD_SIZE": str(n)}
    command = [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(case)]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{case} failed")
    return [json.loads(text.splitlines()[-1]) for text in said]


def work(case: dict[str, Any]) -> dict[str, Any]:
    """One rank's part of a case."""
    import numpy as np
    import torch
    from gpu_bench import new_step, random_batch

    from jielong.config.load import load_config
    from jielong.model.transformer import Transformer
    from jielong.runtime.device import fast_products
    from jielong.runtime.distributed import init_world
    from jielong.runtime.parts import local
    from jielong.training.averaging import WeightAverage
    from jielong.training.parallel import spread

    torch.set_num_threads(case["threads"])
    device = torch.device("cpu")
    with init_world("cpu", 600.0) as world, fast_products():
        values = MODELS[case["model"]] | {"max_position_embeddings": WINDOW, "max_seq_len": WINDOW}
        values |= {"shard_degree": case["degree"]} if "degree" in case else {}
        config = load_config(parallel=case["kind"], **values)
        torch.manual_seed(0)
        model = Transformer(config.model)
        gradients, division = spread(model, config, torch.float32, world, device)
        if case.get("at_once"):
            gradients.waiting = False
        step = new_step(model, torch.float32, gradients=gradients, division=division, world=world)
        average = WeightAverage(model)
        whole = random_batch(config.model.vocab_size, ROWS, WINDOW, documents=False)
        own = whole.rows(np.array_split(np.arange(ROWS), world.world_size)[world.rank])
        parts = own.split(ROWS // MICRO)
        load = None
        if config.model.use_moe:
            load = torch.ones(config.model.num_hidden_layers, config.model.num_experts)
        step(parts, reference_load=load)  # warms up
        average.update(1, 1.0)
        with counting() as sent:
            world.barrier()
            started = time.perf_counter()
            for number in range(case["steps"]):
                step(parts, reference_load=load)
                average.update(number + 2, 1.0)
            spent = (time.perf_counter() - started) / case["steps"]
        state = [
            t for part in step.optimizer.parts for s in part.state.values() for t in s.values()
        ]
        kept = {
            "weights": [local(p.detach()) for p in model.parameters()],
            "gradients": [local(p.grad) for p in model.parameters() if p.grad is not None],
            "optimizer": state,
            "average": list(average.weights().values()),
        }
        return {
            "parameters": model.num_parameters(),
            "embeddings": model.lm_head.weight.numel(),
            "step_s": spent,
            "kept_bytes": {name: sum(t.nbytes for t in ts) for name, ts in kept.items()},
            "given_bytes_per_step": {name: n / case["steps"] for name, n in sent.items()},
        }


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Within, count the bytes that this rank gives to each kind of collective, by torch's names.

    Of an all-gather that is its own part, of a reduce-scatter the whole.
    """
    import torch.distributed as dist

    found: Counter[str] = Counter()
    names = ["all_reduce", "all_to_all_single", "all_gather_single", "reduce_scatter_single"]
    names += ["all_gather_into_tensor", "reduce_scatter_tensor"]  # before torch 2.13
    real = {name: getattr(dist, name) for name in names if hasattr(dist, name)}

    def counted(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = kwargs.get("input_tensor", kwargs.get("input"))
            if given is None:
                given = args[0] if name == "all_reduce" else args[1]
            found[name] += given.nbytes
            return real[name](*args, **kwargs)

        return call

    for name in real:
        setattr(dist, name, counted(name))
    try:
        yield found
    finally:
        for name, function in real.items():
            setattr(dist, name, function)


def told(row: dict[str, Any]) -> str:
    """A row in words."""
    kind = row["kind"] + (" at once" if row.get("at_once") else "")
    kind += f" degree {row['degree']}" if row.get("degree") else ""
    rank = max(row["ranks"], key=lambda r: sum(r["kept_bytes"].values()))
    P = rank["parameters"]
    kept = ", ".join(f"{k} {v / P:.2f}" for k, v in rank["kept_bytes"].items())
    sent = ", ".join(f"{k} {v / P:.2f}" for k, v in rank["given_bytes_per_step"].items())
    what = f"{row['model']:9}{row['processes']} {kind:16} {P:,} parameters"
    return f"{what}; bytes for each: {kept}; given: {sent or 'nothing'}"


if __name__ == "__main__":
    main()
