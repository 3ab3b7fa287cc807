"""What several processes cost on one machine: time, memory and bytes sent, by how they share work.

    python benchmarks/processes.py                # 1 × 2 threads, 2 × 1 thread, in turns; by kind
    python benchmarks/processes.py --count        # bytes and memory with 1, 2 and 4 processes
    python benchmarks/processes.py --follow       # how far apart their losses come in 60 steps

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
# of the models whose losses are followed: windows, tokens of each, updates, the first of them, runs
FOLLOWED = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 288}
FOLLOWED_EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FOLLOWED_ROWS, FOLLOWED_WINDOW, UPDATES, FIRST, SEEDS = 32, 16, 60, 20, 3
SPREADS: list[dict[str, Any]] = [
    {"processes": 2, "kind": "ddp"},
    {"processes": 2, "kind": "fsdp"},
    {"processes": 4, "kind": "ddp"},
    {"processes": 4, "kind": "fsdp"},
    {"processes": 4, "kind": "fsdp", "degree": 2},
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", action="store_true", help="count bytes and memory, time nothing")
    parser.add_argument("--follow", action="store_true", help="compare losses, time nothing")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        case = json.loads(arguments.job)
        print(json.dumps(followed(case) if case.get("follow") else work(case)))
    elif arguments.count:
        count()
    elif arguments.follow:
        follow()
    else:
        take_turns(arguments.turns, arguments.steps)


def count() -> None:
    """Bytes kept and sent, of a dense model and of a mixture."""
    from common import save

    spreads: list[dict[str, Any]] = [
        {"processes": 1, "kind": "ddp"},
        SPREADS[0],
        SPREADS[1],
        SPREADS[1] | {"at_once": True},
        *SPREADS[3:],
    ]
    rows = []
    for model in MODELS:
        for spread in spreads:
            case = {"model": model, "steps": 2, "threads": 1, **spread}
            rows.append({**case, "ranks": launch(case)})
            print(told(rows[-1]), flush=True)
    print(save("processes-count", {"rows": rows}))


def take_turns(turns: int, steps: int) -> None:
    """Time each way in turns, so that a machine that slows down slows all of them."""
    from common import save

    ways = [
        ("1 × 2 alone", 1, 2, {"kind": "ddp"}),
        ("2 × 1 ddp", 2, 1, {"kind": "ddp"}),
        ("2 × 1 torch's ddp", 2, 1, {"kind": "ddp", "torch": True}),
        ("2 × 1 fsdp", 2, 1, {"kind": "fsdp"}),
        ("2 × 1 fsdp, AdamW", 2, 1, {"kind": "fsdp", "optimizer": "adamw"}),
        ("2 × 1 ddp, AdamW", 2, 1, {"kind": "ddp", "optimizer": "adamw"}),
    ]
    seconds: dict[str, list[float]] = {}
    sent: dict[str, Any] = {}
    for _ in range(turns):
        for name, processes, threads, way in ways:
            case = {"model": "dense", "processes": processes, "threads": threads, **way}
            rank = launch(case | {"steps": steps})[0]
            seconds.setdefault(name, []).append(rank["step_s"])
            sent[name] = rank["given_bytes_per_step"]
            print(f"{name:20}{rank['step_s']:8.3f} s a step", flush=True)
    middle = {name: median(values) for name, values in seconds.items()}
    alone = middle["1 × 2 alone"]
    print(f"\n{'':20}{'median':>8}{'least':>8}  {'speed':>5}  MB given to collectives in a step")
    for name, value in middle.items():
        given = ", ".join(f"{kind} {n / 1e6:.1f}" for kind, n in sent[name].items()) or "–"
        print(f"{name:20}{value:8.3f}{min(seconds[name]):8.3f}  {alone / value:5.2f}  {given}")
    ratio = {name: alone / value for name, value in middle.items()}
    print(save("processes", {"seconds": seconds, "ratio": ratio, "given_bytes_per_step": sent}))


def follow() -> None:
    """Losses beside those of one process: of several, and of one that rounds otherwise."""
    from common import save

    rows = []
    for model in MODELS:
        base = {"follow": True, "model": model, "threads": 1}
        alone = launch(base | {"processes": 1, "kind": "ddp"})[0]["runs"]
        one = {"processes": 1, "kind": "ddp"}
        for spread in [one | {"ulp": True}, one | {"halves": True}, *SPREADS]:
            runs = launch(base | spread)[0]["runs"]
            found = [apart(run, other) for run, other in zip(runs, alone, strict=True)]
            rows.append({"model": model, **spread, "runs": found})
            first, whole = (max(max(r["apart"][:n]) for r in found) for n in (FIRST, UPDATES))
            name = f"{spread['processes']} {spread['kind']}" + (" 2 × 2" * ("degree" in spread))
            name = "1, an ulp away" if "ulp" in spread else name
            name = "1, in halves" if "halves" in spread else name
            others = [r["first_other_choice"] for r in found if r["first_other_choice"]]
            choice = f"; other experts from step {', '.join(map(str, others))} on" if others else ""
            print(
                f"{model:9}{name:16}{first:.1e} in {FIRST} steps, {whole:.1e} in {UPDATES}{choice}",
                flush=True,
            )
    print(save("processes-follow", {"rows": rows}))


def apart(run: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """How far apart the losses of two runs are, and the first step with another choice."""
    pairs = zip(run["loads"], other["loads"], strict=True)
    return {
        "apart": [abs(a - b) for a, b in zip(run["losses"], other["losses"], strict=True)],
        "first_other_choice": next((n for n, (a, b) in enumerate(pairs, 1) if a != b), None),
    }


def launch(case: dict[str, Any], script: Path = Path(__file__)) -> list[dict[str, Any]]:
    """Run a case of a script in as many processes as it has; return what each found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    n = case["processes"]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    variables |= {"OMP_NUM_THREADS": str(case["threads"]), "LOCAL_WORLD_SIZE": str(n)}
    command = [sys.executable, str(script.resolve()), "--job", json.dumps(case)]
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
    from jielong.training.parallel import make_parallel_model

    torch.set_num_threads(case["threads"])
    device = torch.device("cpu")
    with init_world("cpu", 600.0) as world, fast_products():
        values = MODELS[case["model"]] | {"max_position_embeddings": WINDOW, "max_seq_len": WINDOW}
        values |= {"shard_degree": case["degree"]} if "degree" in case else {}
        config = load_config(parallel=case["kind"], **values)
        torch.manual_seed(0)
        if case.get("torch"):
            model = Transformer(config.model)
            gradients, sharding = TorchSum(model, world), None
        else:
            model, gradients, sharding = make_parallel_model(config, torch.float32, world, device)
        if case.get("at_once"):
            gradients.waiting = False
        step = new_step(
            model,
            torch.float32,
            optimizer=case.get("optimizer", "muon"),
            gradients=gradients,
            sharding=sharding,
            world=world,
        )
        if case.get("torch"):
            step.model = gradients.model
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


class TorchSum:
    """torch's DistributedDataParallel in the place of our own sum of gradients."""

    def __init__(self, model: Any, world: Any) -> None:
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        def total(_, bucket):  # type: ignore[no-untyped-def]
            work = dist.all_reduce(bucket.buffer(), async_op=True)
            return work.get_future().then(lambda done: done.value()[0])

        self.model = DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.model.register_comm_hook(None, total)  # by itself it would take the mean
        self.world = world

    def begin(self) -> None:
        self.model.require_backward_grad_sync = False

    @contextlib.contextmanager
    def last_pass(self) -> Iterator[None]:
        self.model.require_backward_grad_sync = True
        yield

    def finish(self) -> None:
        self.world.meets()


def followed(case: dict[str, Any]) -> dict[str, Any]:
    """One rank's part of a case whose losses are compared, from several seeds."""
    import torch

    from jielong.runtime.device import fast_products
    from jielong.runtime.distributed import init_world

    torch.set_num_threads(case["threads"])
    with init_world("cpu", 600.0) as world, fast_products():
        return {"runs": [_followed(case, world, seed) for seed in range(SEEDS)]}


def _followed(case: dict[str, Any], world: Any, seed: int) -> dict[str, Any]:
    """Losses and experts' loads of a run whose learning rate does not fall."""
    import numpy as np
    import torch
    from gpu_bench import new_step, random_batch

    from jielong.config.load import load_config
    from jielong.training.parallel import make_parallel_model
    from jielong.training.scaling import default_learning_rate

    values = MODELS[case["model"]] | FOLLOWED
    values |= {"shard_degree": case["degree"]} if "degree" in case else {}
    values |= FOLLOWED_EXPERTS if "use_moe" in values else {}
    config = load_config(parallel=case["kind"], max_seq_len=FOLLOWED_WINDOW, **values)
    torch.manual_seed(seed)
    device = torch.device("cpu")
    model, gradients, sharding = make_parallel_model(config, torch.float32, world, device)
    if case.get("ulp"):
        model.model.embed_tokens.weight.data.view(torch.int32)[0, 0] += 1
    own = {"gradients": gradients, "sharding": sharding, "world": world}
    rate = default_learning_rate(config)
    step = new_step(model, torch.float32, learning_rate=rate, **own)
    rows = np.array_split(np.arange(FOLLOWED_ROWS), world.world_size)[world.rank]
    even = torch.ones(config.model.num_hidden_layers, config.model.num_experts)
    load, losses, loads = even if config.model.use_moe else None, [], []
    for number in range(UPDATES):
        batch = random_batch(config.model.vocab_size, FOLLOWED_ROWS, FOLLOWED_WINDOW, number % 4)
        parts = batch.rows(rows).split(2 if case.get("halves") else 1)
        result = step(parts, reference_load=load)
        load = result.expert_load
        losses.append(result.loss)
        loads.append(None if load is None else load.tolist())
    return {"losses": losses, "loads": loads}


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
