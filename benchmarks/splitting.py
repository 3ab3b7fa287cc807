"""Tensor, pipeline and expert parallelism in small: what each sends and keeps, beside formulas.

    python benchmarks/splitting.py        # 1, 2 and 4 processes of gloo, some seconds each

jielong has none of the three: docs/scaling.md says why, and this checks what it reckons with. Each
is written out for one layer, or a few, of our own model; outputs and gradients are compared with
those of the whole.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from gpu_bench import relative  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from jielong.config.model import ModelConfig  # noqa: E402
from jielong.model.attention import Rotary  # noqa: E402
from jielong.model.moe import MixtureOfExperts  # noqa: E402
from jielong.model.transformer import DecoderLayer  # noqa: E402
from jielong.runtime.distributed import World, init_world  # noqa: E402

BATCH, LENGTH, MICRO_BATCHES, LAYERS, EXPERTS, CHOSEN = 4, 32, 4, 4, 8, 2
CONFIG = ModelConfig(
    vocab_size=64,
    hidden_size=64,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=16,
    intermediate_size=128,
    max_position_embeddings=LENGTH,
)
ACTIVATIONS = 4 * BATCH * LENGTH * CONFIG.hidden_size  # bytes, in float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        case = json.loads(arguments.job)
        with init_world("cpu", 600.0) as world:
            print(json.dumps(WAYS[case["way"]](world)))
        return
    from common import save
    from processes import launch

    rows = []
    for way in WAYS:
        for processes in (1, 2, 4):
            case = {"way": way, "processes": processes, "threads": 1}
            ranks = launch(case, Path(__file__))
            rows.append({**case, "ranks": ranks})
            print(told(way, ranks), flush=True)
    print(save("splitting", {"rows": rows}))


def told(way: str, ranks: list[dict[str, Any]]) -> str:
    """What a rank keeps, what all give to collectives or send, and in brackets the formulas."""
    one = ranks[0]
    given, formula = (sum(rank[key] for rank in ranks) for key in ("given", "given formula"))
    text = f"{way:9}{len(ranks)} processes: matrices {one['kept']:.3f} ({one['kept formula']:.3f}) "
    text += f"of the whole, given {given:,} bytes by all ({formula:,})"
    if "idle" in one:
        text += f", idle {one['idle']:.3f} ({one['idle formula']:.3f})"
    return f"{text}, results {max(rank['away'] for rank in ranks):.0e} away"


def random_weights(module: nn.Module) -> nn.Module:
    """The same on all ranks; a fresh layer adds nothing yet."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.1 * noise if p.ndim == 1 else noise * p.shape[-1] ** -0.5)
    return module


def inputs(number: int) -> Tensor:
    """(BATCH, LENGTH, hidden), the same on all ranks."""
    generator = torch.Generator().manual_seed(number + 1)
    x = torch.randn(BATCH, LENGTH, CONFIG.hidden_size, generator=generator)
    return x.requires_grad_()


def matrices(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.ndim > 1)


# ── tensor parallelism (Shoeybi et al. 2019, arXiv:1909.08053): heads and hidden units divided


class _Reduced(torch.autograd.Function):
    """The sum over ranks, forwards."""

    @staticmethod
    def forward(_: Any, x: Tensor, given: Counter[str]) -> Tensor:  # type: ignore[override]
        given["all-reduce"] += x.nbytes
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(_: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None


class _Shared(torch.autograd.Function):
    """What all ranks read: its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, given: Counter[str]) -> Tensor:  # type: ignore[override]
        ctx.given = given
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.given["all-reduce"] += grad.nbytes
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad, None


def tensor(world: World) -> dict[str, Any]:
    """A layer of which each rank has some heads and some of the feed-forward's hidden units."""
    n, r, c = world.world_size, world.rank, CONFIG
    whole = random_weights(DecoderLayer(c, 0))
    heads = c.num_attention_heads // n
    shape = {"num_attention_heads": heads, "num_key_value_heads": heads}
    part = DecoderLayer(dataclasses.replace(c, **shape, intermediate_size=c.mlp_size // n), 0)
    # what reads the residual stream is divided by rows, what adds to it by columns
    columns = ("o_proj.weight", "down_proj.weight")
    dims = {name: int(name.endswith(columns)) for name, p in whole.named_parameters() if p.ndim > 1}

    def own(name: str, value: Tensor) -> Tensor:
        return value.chunk(n, dims[name])[r] if name in dims else value

    part.load_state_dict({name: own(name, p) for name, p in whole.state_dict().items()})
    rotary, given = Rotary(c.head_size, LENGTH, c.rope_theta)(0, LENGTH), Counter[str]()
    ours, theirs = inputs(0), inputs(0)
    expected = whole(theirs, rotary)
    if n == 1:
        out = part(ours, rotary)
    else:
        read = _Shared.apply(part.input_layernorm(ours), given)
        x = ours + _Reduced.apply(part.self_attn(read, rotary), given)
        read = _Shared.apply(part.post_attention_layernorm(x), given)
        out = x + _Reduced.apply(part.mlp(read), given)
    for result in (out, expected):
        result.square().sum().backward()
    pairs = [(out, expected), (ours.grad, theirs.grad)]
    grads = dict(whole.named_parameters())
    for name, p in part.named_parameters():
        if name in dims:
            pairs.append((p.grad, own(name, grads[name].grad)))
    return {
        "kept": matrices(part) / matrices(whole),
        "kept formula": 1 / n,
        "given": sum(given.values()),
        "given formula": 4 * ACTIVATIONS * (n > 1),
        "away": max(relative(a, b) for a, b in pairs),
    }


# ── pipeline parallelism (Huang et al. 2019, arXiv:1811.06965): all forward passes, then all back


def pipeline(world: World) -> dict[str, Any]:
    """Layers divided among ranks. Time is counted in passes of a micro-batch through a stage."""
    n, r, c = world.world_size, world.rank, CONFIG
    layers = nn.ModuleList(random_weights(DecoderLayer(c, i)) for i in range(LAYERS))
    own = layers[r * LAYERS // n : (r + 1) * LAYERS // n]
    rotary = Rotary(c.head_size, LENGTH, c.rope_theta)(0, LENGTH)
    given, clock, away = 0, 0, 0.0

    def through(stage: Any, x: Tensor) -> Tensor:
        for layer in stage:
            x = layer(x, rotary)
        return x

    def send(x: Tensor, to: int) -> None:
        nonlocal given
        given += x.nbytes
        dist.send(torch.tensor(clock), to)
        dist.send(x.detach(), to)

    def receive(source: int) -> Tensor:
        nonlocal clock
        sent, x = torch.tensor(0), torch.empty(BATCH, LENGTH, c.hidden_size)
        dist.recv(sent, source)
        dist.recv(x, source)
        clock = max(clock, int(sent))
        return x

    read, made = [], []
    for number in range(MICRO_BATCHES):
        x = inputs(number) if r == 0 else receive(r - 1).requires_grad_()
        out = through(own, x)
        clock += 1
        if r < n - 1:
            send(out, r + 1)
        read.append(x)
        made.append(out)
    for x, out in zip(read, made, strict=True):
        if r == n - 1:
            out.square().sum().backward()
        else:
            out.backward(receive(r + 1))
        clock += 1
        if r > 0:
            assert x.grad is not None
            send(x.grad, r - 1)
    ours = [p.grad.clone() for p in own.parameters() if p.grad is not None]
    layers.zero_grad()
    for number in range(MICRO_BATCHES):
        x = inputs(number)
        through(layers, x).square().sum().backward()
        if r == 0:
            away = max(away, relative(*(t.grad for t in (read[number], x))))  # type: ignore
    theirs = [p.grad for p in own.parameters() if p.grad is not None]
    away = max(away, *(relative(a, b) for a, b in zip(ours, theirs, strict=True)))
    ends = max(world.all_gather(clock))
    borders = (r > 0) + (r < n - 1)  # each is crossed once by every micro-batch from either side
    return {
        "kept": matrices(own) / matrices(layers),
        "kept formula": 1 / n,
        "given": given,
        "given formula": MICRO_BATCHES * ACTIVATIONS * borders,
        "idle": 1 - 2 * MICRO_BATCHES / ends,
        "idle formula": (n - 1) / (MICRO_BATCHES + n - 1),
        "away": away,
    }


# ── expert parallelism (Lepikhin et al. 2020, arXiv:2006.16668): tokens travel to their experts


class _Exchanged(torch.autograd.Function):
    """Rows sent to the ranks in order, `to` each; their gradients take the way back."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, rows: Tensor, to: list[int], come: list[int], given: Counter[str]
    ) -> Tensor:
        ctx.counts, ctx.given = (come, to), given
        return _exchange(rows, to, come, given)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore
        return _exchange(grad.contiguous(), *ctx.counts, ctx.given), None, None, None


def _exchange(rows: Tensor, to: list[int], come: list[int], given: Counter[str]) -> Tensor:
    given["all-to-all"] += rows.nbytes
    received = rows.new_empty(sum(come), *rows.shape[1:])
    dist.all_to_all_single(received, rows, come, to)
    return received


def expert(world: World) -> dict[str, Any]:
    """A layer of experts, some of which each rank has; each rank has tokens of its own."""
    n, r = world.world_size, world.rank
    shape = {"use_moe": True, "num_experts": EXPERTS, "num_experts_per_tok": CHOSEN}
    c = dataclasses.replace(CONFIG, **shape, moe_intermediate_size=64)
    whole = random_weights(MixtureOfExperts(c))
    own = MixtureOfExperts(dataclasses.replace(c, num_experts=EXPERTS // n)).experts
    with torch.no_grad():
        for name, p in own.named_parameters():
            p.copy_(getattr(whole.experts, name).chunk(n)[r])
    theirs = [inputs(rank) for rank in range(n)]
    expected = [whole(x) for x in theirs]
    torch.stack([out.square().sum() for out in expected]).sum().backward()
    ours, given = inputs(r), Counter[str]()
    routing = whole.gate(ours)
    choices, order = routing.experts.flatten().sort(stable=True)  # (tokens · k,)
    to = torch.bincount(choices // (EXPERTS // n), minlength=n)
    come = torch.empty_like(to)
    rows = ours.flatten(0, 1)[order // CHOSEN]
    if n > 1:
        dist.all_to_all_single(come, to)
        counts = to.tolist(), come.tolist()
        which = _exchange(choices % (EXPERTS // n), *counts, Counter())
        rows = _Exchanged.apply(rows, *counts, given)
    else:
        which = choices
    done = own(rows, which[:, None], torch.ones(len(rows), 1))
    if n > 1:
        done = _Exchanged.apply(done, *reversed(counts), given)
    each = torch.empty_like(done).index_copy(0, order, done).unflatten(0, (-1, CHOSEN))
    out = (each * routing.weights.flatten(0, 1)[..., None]).sum(1).view_as(ours)
    out.square().sum().backward()
    pairs = [(out, expected[r]), (ours.grad, theirs[r].grad)]
    for name, p in own.named_parameters():
        pairs.append((p.grad, getattr(whole.experts, name).grad.chunk(n)[r]))
    return {
        "kept": matrices(own) / matrices(whole.experts),
        "kept formula": 1 / n,
        "given": sum(given.values()),
        "given formula": 4 * CHOSEN * ACTIVATIONS * (n > 1),
        "away": max(relative(a, b) for a, b in pairs),
    }


WAYS = {"tensor": tensor, "pipeline": pipeline, "expert": expert}

if __name__ == "__main__":
    main()
