"""The parts of `gpu.py` about several processes, rehearsed by one: DDP and FSDP2 of one rank.

A group of one sends nothing, but all else is done: hooks, buckets, copies into and out of what is
gathered and scattered. So what FSDP2 costs here is its least cost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from gpu_bench import (
    KINDS,
    MIXTURE,
    Bench,
    Part,
    new_model,
    new_step,
    random_batch,
    small_model,
    worst,
)

from jielong.checkpoint.weights import named_weights
from jielong.config.load import load_config
from jielong.model.transformer import Transformer
from jielong.runtime.distributed import World
from jielong.runtime.parts import local
from jielong.runtime.sharding import ShardedSum
from jielong.training.parallel import shard_among_ranks

ONE, PAIR = World(0, 1), World(0, 2)  # the second has one member here, which sums


def checks() -> list[Part]:
    return [Part("one rank of FSDP2", "check", one_rank_of_fsdp)]


@contextlib.contextmanager
def group_of_one(bench: Bench) -> Iterator[str]:
    """Within, this process is the only one of a group; yields the backend."""
    backend = "nccl" if bench.is_gpu else "gloo"
    if bench.is_gpu:
        torch.cuda.set_device(0)
    store = dist.FileStore(str(bench.folder / "store"), 1)
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield backend
    finally:
        dist.destroy_process_group()


def divided(model: Transformer, bench: Bench, offload: bool = False) -> ShardedSum:
    """Divide a model as a run of several processes would, among this one alone."""
    config = load_config(parallel="fsdp", cpu_offload=offload)
    sharding = shard_among_ranks(model, config, bench.half, ONE, bench.device)
    return ShardedSum(model, ONE, sharding.waiting)


def one_rank_of_fsdp(bench: Bench) -> dict[str, Any]:
    """Steps under FSDP2 beside plain ones: losses, gradients, and the weights that are saved."""
    found: dict[str, Any] = {}
    with group_of_one(bench) as backend:
        for kind, changes in KINDS.items():
            config = small_model(**changes)
            batches = random_batch(config.vocab_size, 4, 64).split(2)
            plain, parts = (new_model(config, torch.device("cpu")) for _ in range(2))
            plain.to(bench.device)
            results, grads, weights = [], [], []
            for model, gradients in ((plain, None), (parts, divided(parts, bench))):
                step = new_step(model, bench.half, gradients=gradients)
                results.append([step(batches) for _ in range(3)])
                grads.append([local(p.grad) for p in model.parameters() if p.grad is not None])
                weights.append(named_weights(model))
            for ours, theirs in zip(*results, strict=True):
                assert ours.tokens == theirs.tokens and ours.applied and theirs.applied
                assert abs(ours.loss - theirs.loss) < 2e-3 * ours.loss, (ours, theirs)
            away = worst(grads[1], grads[0])
            # after updates: with experts in half precision a rounded score may choose another
            assert away < (0.1 if bench.is_gpu else 1e-4), (kind, away)
            saved = worst(list(weights[1].values()), [weights[0][n] for n in weights[1]])
            assert saved < (0.02 if bench.is_gpu else 1e-5), (kind, saved)
            found |= {f"{kind}: gradients": away, f"{kind}: weights": saved}
        found["offloaded: loss"] = _offloaded(bench)
    return {"backend": backend, **found}


def _offloaded(bench: Bench) -> float:
    """The relative difference of a loss after updates of parameters that are on the host."""
    config = small_model(**MIXTURE)
    batches = random_batch(config.vocab_size, 4, 64).split(2)
    losses: list[float] = []
    for offload in (False, True):
        model = new_model(config, torch.device("cpu"))
        gradients = divided(model, bench, offload)
        if bench.is_gpu:  # norms and routers are not offloaded
            homes = {local(p.detach()).device.type for p in model.parameters()}
            assert homes == ({"cpu", "cuda"} if offload else {"cuda"}), homes
        step = new_step(model, bench.half, gradients=gradients)
        losses.append([step(batches).loss for _ in range(3)][-1])
    away = abs(losses[1] - losses[0]) / losses[0]
    assert away < 0.02, losses
    return away
