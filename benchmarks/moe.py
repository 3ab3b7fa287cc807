"""Does a mixture of experts train as fast as a dense model of equal active parameters?

Both take the same steps in turn, so that whatever else the machine does falls on both; the ratio of
processor time is the steadier one where the machine is shared.

    PYTHONPATH=src python benchmarks/moe.py --rounds 5 --threads 2
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import numpy as np
import torch

from jielong.config.load import load_config
from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from jielong.training.scaling import default_learning_rate, default_micro_batch_size
from jielong.training.step import TrainStep

GOAL = 0.8


def dense_twin(config: Config) -> Config:
    """The dense model whose SwiGLU layer is as wide as all experts that a token passes."""
    m = config.model
    width = m.expert_size * (m.num_experts_per_tok + m.num_shared_experts)
    values = {f.name: f.default for f in dataclasses.fields(m)} | {
        name: getattr(m, name)
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
        )
    }
    dense = type(m)(**(values | {"intermediate_size": width}))
    return dataclasses.replace(config, model=dense).validated()


class Contender:
    """A model in training on random tokens: what they are makes no difference to the speed."""

    def __init__(self, config: Config) -> None:
        torch.manual_seed(0)
        self.config = config
        self.model = Transformer(config.model)
        self.optimizer = Optimizer(self.model, config.training, default_learning_rate(config))
        size, window = config.training.global_batch_size, config.data.max_seq_len
        shape = (size, window + 1)
        tokens = torch.randint(config.model.vocab_size, shape)
        batch = Batch(tokens[:, :-1], tokens[:, 1:], None, np.arange(shape[0]))
        micro_batch = default_micro_batch_size(size, window, self.model.device)
        self.batches = batch.split(-(-size // micro_batch))
        self.train_step = TrainStep(self.model, self.optimizer, grad_clip=1.0)

    def step(self) -> tuple[float, float]:
        """Takes an optimizer step; returns its seconds by the clock and of the processor."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self.train_step(self.batches)
        return time.perf_counter() - start, time.process_time() - cpu_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="moe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of each model in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes = {"global_batch_size": 32, "weight_decay": 0.1} | dict(
        setting.split("=", 1) for setting in options.set
    )
    config = load_config(options.preset, **changes)
    moe, dense = Contender(config), Contender(dense_twin(config))
    for name, model in (("moe", moe.model), ("dense", dense.model)):
        total, active = model.num_parameters(), model.num_active_parameters()
        print(f"{name}: {total / 1e6:.2f}M parameters, {active / 1e6:.2f}M active")
    moe.step(), dense.step()
    tokens = sum(batch.target_count for batch in moe.batches) * options.steps
    ratios = []
    for _ in range(options.rounds):
        pairs = [(moe.step(), dense.step()) for _ in range(options.steps)]
        (m, m_cpu), (d, d_cpu) = (
            [sum(s) for s in zip(*one, strict=True)] for one in zip(*pairs, strict=True)
        )
        ratios.append((d / m, d_cpu / m_cpu))
        print(
            f"moe {tokens / m:,.0f} tok/s · dense {tokens / d:,.0f} tok/s · "
            f"ratio {d / m:.3f} · of processor time {d_cpu / m_cpu:.3f}",
            flush=True,
        )
    wall, cpu = (statistics.median(kind) for kind in zip(*ratios, strict=True))
    print(f"median ratio {wall:.3f}, of processor time {cpu:.3f} (goal ≥ {GOAL})")


if __name__ == "__main__":
    main()
