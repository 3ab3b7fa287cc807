"""Training alone, and beside a second run on the same cores: what is lost beyond the fair share.

    python benchmarks/beside.py            # preset `small`, batches of 8 windows of 256
    python benchmarks/beside.py --short

OpenMP's threads wait for each other by spinning, so two runs that share their cores can take more
than half of each other's speed. Alone and beside take turns; each run is a process of its own.
`fair` is the sum of the two speeds over the speed alone: 1 means that nothing is lost. Set
GOMP_SPINCOUNT, OMP_WAIT_POLICY or OMP_NUM_THREADS to compare.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

from common import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="one round of five seconds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.preset, arguments.seconds)
        return
    if arguments.short:
        arguments.seconds, arguments.rounds = 5.0, 1
    alone: list[int] = []
    beside: list[list[int]] = []
    for _ in range(arguments.rounds):
        alone += measure(1, arguments.preset, arguments.seconds)
        beside.append(sorted(measure(2, arguments.preset, arguments.seconds)))
        print("alone", alone[-1], "beside", *beside[-1], flush=True)
    speed = statistics.median(alone)
    slower, faster = (statistics.median(column) for column in zip(*beside, strict=True))
    result: dict[str, Any] = {
        "preset": arguments.preset,
        "alone": speed,
        "beside": [slower, faster],
        "fair": round((slower + faster) / speed, 2),
    }
    print(result)
    rounds = {"alone": alone, "beside": beside}
    print(save("beside-short" if arguments.short else "beside", result | {"rounds": rounds}))


def measure(count: int, preset: str, seconds: float) -> list[int]:
    """Tokens/s of `count` processes that train at the same time."""
    command = [sys.executable, __file__, "--worker", "--preset", preset, "--seconds", str(seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for worker in workers:
        worker.stdout.readline()  # "ready"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    return [int(worker.communicate()[0]) for worker in workers]


def work(preset: str, seconds: float) -> None:
    """Train on random tokens: some steps, then, once told to, for some seconds; print tokens/s."""
    import torch

    from jielong.config.load import load_config
    from jielong.data.batches import Batch
    from jielong.model.transformer import Transformer
    from jielong.runtime.device import fast_products
    from jielong.training.optimizer import Optimizer
    from jielong.training.scaling import default_learning_rate
    from jielong.training.step import TrainStep

    config = load_config(preset, compile="off", weight_decay=0.1)
    model = Transformer(config.model)
    optimizer = Optimizer(model, config.training, default_learning_rate(config))
    step = TrainStep(model, optimizer, grad_clip=1.0)
    ids = torch.randint(0, config.model.vocab_size, (8, 257))
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    batch = Batch(tokens, targets, None, ids[:, 0].numpy())
    with fast_products():
        for _ in range(3):
            step([batch])
        print("ready", flush=True)
        sys.stdin.readline()
        steps, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            step([batch])
            steps += 1
    print(round(steps * targets.numel() / spent), flush=True)


if __name__ == "__main__":
    main()
