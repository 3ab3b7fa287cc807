"""Training arithmetic beside a bare matmul: what share of the machine's rate a step reaches.

    python benchmarks/throughput.py            # the 25.83M model (hidden 512), windows of 512
    python benchmarks/throughput.py --short

Contenders take turns, batch by batch. FLOPs of a token are the model's own (PaLM, appendix B):
6 × parameters, and 6 × layers × width × window for causal attention, whatever a contender computes
beyond that. `step` is the whole update of ours, with Muon.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import matmul_flops, save
from old_way import Llama

from jielong.config.load import load_config
from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from jielong.training.scaling import default_learning_rate, default_micro_batch_size
from jielong.training.step import TrainStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="llama-26m")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--short", action="store_true", help="batches of 8, three rounds")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.batch_size, arguments.rounds = 8, 3
    config = load_config(arguments.preset, document_mask=False, compile="off", weight_decay=0.1)
    contenders, flops = build(config, arguments.batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    matmul = []
    for _ in range(arguments.rounds):
        for name, run in contenders.items():
            matmul.append(matmul_flops(1024, 5))
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    peak = statistics.median(matmul)
    tokens = arguments.batch_size * config.data.max_seq_len
    rows = []
    for name, spent in seconds.items():
        best = min(spent[1:])  # the first round warms up
        rows.append(
            {
                "contender": name,
                "tokens_per_second": round(tokens / best),
                "gflops": round(flops * tokens / best / 1e9, 1),
                "share_of_matmul": round(flops * tokens / best / peak, 3),
            }
        )
        print(rows[-1], flush=True)
    result = {"preset": arguments.preset, "batch": arguments.batch_size, "table": rows}
    name = "throughput-short" if arguments.short else "throughput"
    print(save(name, {"matmul_gflops_beside": round(peak / 1e9, 1), **result}))


def build(config: Config, batch_size: int) -> tuple[dict[str, Callable[[], object]], float]:
    m, T = config.model, config.data.max_seq_len
    model = Transformer(m)
    for p in model.parameters():  # the zeros of a fresh model would flatter
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.02)
    optimizer = Optimizer(model, config.training, default_learning_rate(config))
    old = Llama(
        m.vocab_size, m.hidden_size, m.num_hidden_layers, m.num_attention_heads,
        m.num_key_value_heads, T,
    )  # fmt: skip
    ids = torch.randint(0, m.vocab_size, (batch_size, T + 1))
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    batch = Batch(tokens, targets, None, ids[:, 0].numpy())
    size = default_micro_batch_size(batch_size, T, model.device)
    parts = batch.split(-(-batch_size // size))
    train_step = TrainStep(model, optimizer, grad_clip=1.0)

    def ours() -> None:
        (model(tokens, targets).loss / targets.numel()).backward()
        model.zero_grad()

    def step() -> None:
        train_step(parts)

    def old_way() -> None:
        logits = old(tokens).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, targets.flatten()).backward()
        old.zero_grad()

    attention = 6 * m.num_hidden_layers * m.num_attention_heads * m.head_size * T
    flops = 6 * model.num_parameters() + attention
    return {"forward and backward": ours, "step": step, "old way, fwd and bwd": old_way}, flops


if __name__ == "__main__":
    main()
