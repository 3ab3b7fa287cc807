"""The measures of `gpu.py`: tokens a second, share of the card's rate, memory, time by part."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from gpu_bench import Bench, Part, SkipPart, new_step, random_batch
from gpu_ranks import PAIR, divided, group_of_one
from torch import nn

from jielong.config.load import load_config
from jielong.config.model import ModelConfig
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.runtime.cards import peak_bf16_flops
from jielong.runtime.device import autocast, to_device
from jielong.runtime.gradients import GradientSum
from jielong.runtime.sharding import ShardedSum
from jielong.training.averaging import WeightAverage
from jielong.training.compilation import compile_layers
from jielong.training.scaling import MICRO_BATCH_TOKENS
from jielong.training.step import TrainStep
from jielong.training.utilisation import flops_per_token

LENGTHS = (512, 2048)
CONTENDERS = ("jielong", "jielong compiled", "plain", "transformers")
PLAIN_TOKENS = 32 * 512  # at once: the script's batch


def model_of(name: str, length: int, gpu: bool) -> ModelConfig:
    """minimind (26M), base (101M), 350m, and tiny for a rehearsal; contexts of `length`."""
    if name == "350m":
        shape: dict[str, Any] = {"vocab_size": 16384, "hidden_size": 1024}
        shape |= {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
    else:
        preset = {"minimind": "llama-26m"}.get(name, name)
        shape = {k: v for k, v in vars(load_config(preset).model).items() if k != "head_dim"}
    return ModelConfig(**(shape | {"max_position_embeddings": length})).validated()


def parts(quick: bool, device: str) -> list[Part]:
    """Ordered by importance: what time does not allow for is left out from the end."""
    if device != "cuda":
        cells = [("tiny", 64, contender) for contender in CONTENDERS]
        profiled = [("tiny", 64)]
    elif quick:
        cells = [("minimind", 512, c) for c in CONTENDERS]
        cells += [("base", 512, c) for c in CONTENDERS]
        profiled = [("base", 512)]
    else:
        order = [("base", 512), ("minimind", 512), ("350m", 512), ("base", 2048)]
        order += [("350m", 2048), ("minimind", 2048)]
        cells = [(m, T, c) for m, T in order for c in CONTENDERS]
        profiled = [("base", 512), ("minimind", 512)]
    # what several processes do, by one
    cells += [(m, T, f"jielong {kind}") for m, T in profiled[:1] for kind in ("DDP", "FSDP2")]
    speeds = [
        Part(
            f"speed {m} {T} {contender}",
            "measure",
            lambda bench, m=m, T=T, c=contender: speed(bench, m, T, c),
            seconds=30 if "compiled" in contender else 6,
            timeout=150,
        )
        for m, T, contender in cells
    ]
    profiles = [
        Part(f"step by part {m} {T}", "measure", lambda bench, m=m, T=T: by_part(bench, m, T))
        for m, T in profiled
    ]
    first = len(CONTENDERS)
    return [Part("rates", "measure", rates, 5), *speeds[:first], *profiles, *speeds[first:]]


def rates(bench: Bench) -> dict[str, float]:
    """What the card does: products in bfloat16, of a square and of a model's; copies in memory."""
    size, tokens = (8192, 32768) if bench.is_gpu else (256, 512)
    dtype = torch.bfloat16
    found = {}
    for name, (m, k, n) in {
        "bf16 TFLOP/s": (size, size, size),
        "tokens × 768 × 2048 TFLOP/s": (tokens, 768, 2048),
        "tokens × 512 × 1408 TFLOP/s": (tokens, 512, 1408),
    }.items():
        a, b = (torch.randn(s, device=bench.device, dtype=dtype) for s in ((m, k), (k, n)))
        found[name] = 2 * m * n * k / best_seconds(bench, lambda a=a, b=b: a @ b) / 1e12
    x = torch.empty(2**28 if bench.is_gpu else 2**20, device=bench.device)
    y = torch.empty_like(x)
    found["copy GB/s"] = 2 * x.nbytes / best_seconds(bench, lambda: y.copy_(x)) / 1e9
    return {name: round(value, 3) for name, value in found.items()}


def best_seconds(bench: Bench, call: Callable[[], Any], repeats: int = 5, inner: int = 10) -> float:
    """The best mean of `inner` calls."""
    best = float("inf")
    for _ in range(repeats + 1):  # the first warms up
        bench.wait()
        started = time.perf_counter()
        for _ in range(inner):
            call()
        bench.wait()
        best = min(best, (time.perf_counter() - started) / inner)
    return best


@dataclass
class Contender:
    """A model in training: `step` is a whole update of `tokens` tokens."""

    step: Callable[[], Any]
    tokens: int
    warm_up_s: float = 0.0
    note: str = ""


def speed(bench: Bench, name: str, length: int, contender: str) -> dict[str, Any]:
    """Tokens a second and more of a contender; the micro-batch is halved until it fits."""
    config = model_of(name, length, bench.is_gpu)
    micro_batch = MICRO_BATCH_TOKENS if contender.startswith("jielong") else PLAIN_TOKENS
    if not bench.is_gpu:
        micro_batch = 256
    tokens = (2**16 if bench.quick else 2**17) if bench.is_gpu else 512
    while True:
        try:
            return _measure(bench, config, length, contender, tokens, micro_batch)
        except torch.OutOfMemoryError:
            if micro_batch <= length:
                raise
        micro_batch //= 2
        torch.cuda.empty_cache()


def _measure(
    bench: Bench, config: ModelConfig, length: int, name: str, tokens: int, micro_batch: int
) -> dict[str, Any]:
    if bench.is_gpu:
        torch.cuda.reset_peak_memory_stats()
    # windows of one document each, so that all contenders do the same arithmetic
    batch = random_batch(config.vocab_size, tokens // length, length, documents=False)
    make = {"plain": plain, "transformers": of_transformers}.get(name, ours)
    with contextlib.ExitStack() as stack:
        if name.endswith(("DDP", "FSDP2")):
            contender = as_rank(bench, config, batch, micro_batch, name, stack)
        else:
            contender = make(bench, config, batch, micro_batch, "compiled" in name)
        return _timed(bench, config, length, contender, tokens, micro_batch, name)


def _timed(
    bench: Bench,
    config: ModelConfig,
    length: int,
    contender: Contender,
    tokens: int,
    micro_batch: int,
    name: str,
) -> dict[str, Any]:
    for _ in range(3):
        contender.step()
    bench.wait()
    seconds = (1.2 if bench.quick else 2.0) if bench.is_gpu else 0.2
    steps, started = 0, time.perf_counter()
    while steps < 3 or time.perf_counter() - started < seconds:
        contender.step()
        bench.wait()
        steps += 1
    spent = time.perf_counter() - started
    if "compiled" in name:
        torch._dynamo.reset()
    of_a_token = flops_per_token(config, config.parameter_count, length)  # dense models alone
    flops = of_a_token * steps * tokens / spent
    peak = peak_bf16_flops(torch.cuda.get_device_name()) if bench.is_gpu else None
    return {
        "tokens_per_second": round(steps * tokens / spent),
        "step_ms": round(1000 * spent / steps, 2),
        "flops_per_second": flops,
        "mfu": None if peak is None else round(flops / peak, 4),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3) if bench.is_gpu else 0.0,
        "tokens_at_once": micro_batch,
        "tokens_per_step": tokens,
        "parameters": config.parameter_count,
        "warm_up_s": round(contender.warm_up_s, 2),
        "note": contender.note,
    }


def ours(
    bench: Bench, config: ModelConfig, batch: Batch, micro_batch: int, compiled: bool
) -> Contender:
    """A run's own step: documents in the windows' own rows, Muon, the average of the weights."""
    model, step, average, parts = _ours(bench, config, batch, micro_batch)
    warm_up = 0.0
    if compiled:
        started = time.perf_counter()
        problem = compile_layers(model, parts[0], bench.half)
        assert problem is None, f"it does not compile: {problem}"
        bench.wait()
        warm_up = time.perf_counter() - started
    note = model.model.describe_attention(bench.device, bench.half)
    return Contender(_update(step, average, parts), batch.tokens.numel(), warm_up, note)


def _update(step: TrainStep, average: WeightAverage, parts: list[Batch]) -> Callable[[], None]:
    counted = itertools.count(1)

    def update() -> None:
        step(parts)
        average.update(next(counted), 1.0)

    return update


def as_rank(
    bench: Bench,
    config: ModelConfig,
    batch: Batch,
    micro_batch: int,
    name: str,
    stack: contextlib.ExitStack,
) -> Contender:
    """As `ours`, in a process group of one under DDP or FSDP2, which ends with the stack."""
    stack.enter_context(group_of_one(bench))
    model, step, average, parts = _ours(bench, config, batch, micro_batch, name)
    note = model.model.describe_attention(bench.device, bench.half)
    return Contender(_update(step, average, parts), batch.tokens.numel(), 0.0, note)


def _ours(
    bench: Bench, config: ModelConfig, batch: Batch, micro_batch: int, name: str = ""
) -> tuple[Transformer, TrainStep, WeightAverage, list[Batch]]:
    torch.manual_seed(0)
    with bench.device:
        model = Transformer(config)
        _spread(model)
    gradients: GradientSum | ShardedSum | None = divided(model, bench) if "FSDP2" in name else None
    if "DDP" in name:
        gradients = GradientSum(model.parameters(), PAIR)
    rows = torch.zeros(batch.tokens.shape, dtype=torch.int32)
    batch = Batch(batch.tokens, batch.targets, rows, batch.windows)
    parts = batch.split(-(-batch.tokens.numel() // micro_batch))
    step = new_step(model, bench.half, gradients=gradients)
    return model, step, WeightAverage(model), parts


def _spread(model: nn.Module) -> None:
    """Weights that are not zero: zeros draw less power, so a card would run faster than it does."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(std=0.02)


def plain(
    bench: Bench, config: ModelConfig, batch: Batch, micro_batch: int, compiled: bool
) -> Contender:
    """The same model written plainly, in the script's way, without its padding."""
    from old_way import Llama

    torch.manual_seed(0)
    with bench.device:
        model = Llama(
            config.vocab_size,
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            batch.tokens.shape[1],
        )
    return _by_adamw(bench, model, lambda tokens: model(tokens), batch, micro_batch)


def of_transformers(
    bench: Bench, config: ModelConfig, batch: Batch, micro_batch: int, compiled: bool
) -> Contender:
    """transformers' own Llama or Qwen3 under the same AdamW, with its scaled dot product."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        raise SkipPart(f"transformers is not here: {error}") from None
    theirs = AutoConfig.for_model(
        "qwen3" if config.qk_norm else "llama",
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_size,
        max_position_embeddings=config.max_position_embeddings,
        tie_word_embeddings=config.tie_word_embeddings,
        use_cache=False,
    )
    torch.manual_seed(0)
    with bench.device:
        model = AutoModelForCausalLM.from_config(theirs, attn_implementation="sdpa")
    model.float().train()
    return _by_adamw(bench, model, lambda tokens: model(tokens).logits, batch, micro_batch)


def _by_adamw(
    bench: Bench,
    model: nn.Module,
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    batch: Batch,
    micro_batch: int,
) -> Contender:
    """Autocast, the logits of the whole micro-batch, clipping, torch's AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=bench.half == torch.float16)
    parts = batch.split(-(-batch.tokens.numel() // micro_batch))

    def step() -> None:
        for part in parts:
            tokens, targets = (to_device(x, bench.device) for x in (part.tokens, part.targets))
            with autocast(bench.device, bench.half):
                logits = logits_of(tokens)
                loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
            scaler.scale(loss / len(parts)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return Contender(step, batch.tokens.numel())


def by_part(bench: Bench, name: str, length: int) -> dict[str, Any]:
    """Where the time of a step goes: by part, each waited for, and by operation, as profiled."""
    config = model_of(name, length, bench.is_gpu)
    tokens, micro_batch = (2**16, MICRO_BATCH_TOKENS) if bench.is_gpu else (512, 256)
    batch = random_batch(config.vocab_size, tokens // length, length, documents=False)
    model, step, average, parts = _ours(bench, config, batch, micro_batch)
    for _ in range(3):
        step(parts)

    def forward() -> torch.Tensor:
        with autocast(bench.device, bench.half):
            loss = model(
                to_device(parts[0].tokens, bench.device),
                to_device(parts[0].targets, bench.device),
                parts[0].document_ids,
            ).loss
        assert loss is not None
        return loss

    def both() -> None:
        forward().backward()

    both()
    timings = {
        "whole step": lambda: step(parts),
        "forward of a micro-batch": forward,
        "forward and backward of it": both,
        "optimizer": lambda: step.optimizer.step(1.0),
        "average of the weights": lambda: average.update(10, 1.0),
    }
    milliseconds = {k: 1000 * best_seconds(bench, f, 2, 3) for k, f in timings.items()}
    return {
        "tokens_at_once": micro_batch,
        "micro_batches": len(parts),
        "milliseconds": {k: round(v, 3) for k, v in milliseconds.items()},
        **_profile(bench, lambda: step(parts)),
    }


def _profile(bench: Bench, step: Callable[[], Any], steps: int = 2) -> dict[str, Any]:
    """The slowest operations of a step, and the share of its time in which the GPU works."""
    from torch.profiler import profile

    bench.wait()
    with profile() as recorded:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        bench.wait()
        seconds = time.perf_counter() - started
    averages = recorded.key_averages()
    time_of = "self_device_time_total" if bench.is_gpu else "self_cpu_time_total"
    # on a GPU kernels alone: what calls them is listed with the same time again
    kernels = [
        e for e in averages if not bench.is_gpu or e.device_type == torch.autograd.DeviceType.CUDA
    ]
    kernels.sort(key=lambda event: getattr(event, time_of), reverse=True)
    total = sum(getattr(event, time_of) for event in kernels)
    return {
        "kernels_per_step": sum(event.count for event in kernels) / steps,
        "busy_share": round(total / 1e6 / seconds, 3) if bench.is_gpu else None,
        "operations": [
            {
                "operation": event.key,
                "ms": round(getattr(event, time_of) / 1000 / steps, 3),
                "share": round(getattr(event, time_of) / max(1, total), 4),
                "calls": event.count / steps,
            }
            for event in kernels[:30]
        ],
    }
