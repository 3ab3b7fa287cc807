"""Peak host memory of training the 25.83M model on batches of 32 × 512: ours and the old way's.

    python benchmarks/memory.py

Each runs two updates in a process of its own, which then reports its peak resident size.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

from common import save

CONTENDERS = ("jielong", "old", "torch alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", choices=CONTENDERS, help="(internal) run one, print its peak")
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.one:
        train(arguments.one, arguments.batch_size)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    peaks = {}
    for name in CONTENDERS:
        command = [sys.executable, __file__, "--one", name]
        command += ["--batch-size", str(arguments.batch_size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[name] = int(done.stdout.split()[-1])
        print(f"{name:12} {peaks[name] / 2**30:6.2f} GiB", flush=True)
    print(f"ours / old: {peaks['jielong'] / peaks['old']:.2f}")
    print(save("memory", {"batch": arguments.batch_size, "peak_bytes": peaks}))


def train(name: str, batch_size: int) -> None:
    import torch

    if name == "torch alone":
        return
    sys.path.insert(0, str(Path(__file__).parent))
    ids = torch.randint(0, 6400, (batch_size, 513))
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    if name == "old":
        from old_way import Llama

        old = Llama(6400, 512, 8, 8, 2, 512)
        adamw = torch.optim.AdamW(old.parameters(), lr=5e-4)
        for _ in range(2):
            logits = old(tokens).flatten(0, 1)
            torch.nn.functional.cross_entropy(logits, targets.flatten()).backward()
            adamw.step()
            adamw.zero_grad(set_to_none=True)
        return
    from jielong.config.load import load_config
    from jielong.data.batches import Batch
    from jielong.model.transformer import Transformer
    from jielong.training.optimizer import Optimizer
    from jielong.training.scaling import default_learning_rate, default_micro_batch_size
    from jielong.training.step import TrainStep

    config = load_config("llama-26m", weight_decay=0.1)
    model = Transformer(config.model)
    optimizer = Optimizer(model, config.training, default_learning_rate(config))
    train_step = TrainStep(model, optimizer, grad_clip=1.0)
    batch = Batch(tokens, targets, torch.zeros_like(tokens).int(), ids[:, 0].numpy())
    size = default_micro_batch_size(batch_size, 512, model.device)
    parts = batch.split(-(-batch_size // size))
    for _ in range(2):
        train_step(parts)


if __name__ == "__main__":
    main()
