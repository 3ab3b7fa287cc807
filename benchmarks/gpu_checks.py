"""The checks of `gpu.py`: each compares the GPU with the CPU, or with the definition."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gpu_ranks
import torch
import torch.nn.functional as F
from gpu_bench import (
    KINDS,
    MIXTURE,
    Bench,
    Part,
    SkipPart,
    corpus,
    gradients,
    new_model,
    new_step,
    random_batch,
    relative,
    small_model,
    worst,
)
from torch import Tensor

from jielong.config.load import load_config, preset_names
from jielong.config.sampling import Sampling
from jielong.model import attention_backends, grouped
from jielong.model.attention import KVCache
from jielong.model.loss import chunk_tokens, distillation_loss, linear_cross_entropy
from jielong.model.soft_targets import BigramTargets
from jielong.model.transformer import Transformer
from jielong.runtime.device import autocast, choose_dtype, describe, to_device
from jielong.tokenization.spelling import spelling_of
from jielong.training.bigrams import count_bigrams
from jielong.training.optimizer import orthogonalize
from jielong.training.scaling import MODEL_SIZES
from jielong.training.shared_updates import SharedUpdates
from jielong.training.step import TrainStep

CPU = torch.device("cpu")


def parts() -> list[Part]:
    return [
        Part("environment", "check", environment),
        Part("attention within documents", "check", attention),
        Part("first steps of every model", "check", first_steps, 20, 180),
        *(
            Part(f"losses, {kind} {name}", "check", losses_part(kind, name))
            for kind in KINDS
            for name in ("float32", "bfloat16", "float16")
        ),
        Part("fused loss", "check", fused_loss),
        Part("loss with bigrams", "check", loss_with_bigrams),
        Part("Muon in bfloat16", "check", muon),
        Part("float16 scaler", "check", float16_scaler),
        Part("grouped products", "check", grouped_products),
        Part("host reads in a step", "check", host_reads),
        Part("tokens spelled alike", "check", shared_updates),
        Part("activation checkpointing", "check", activation_checkpointing),
        Part("generation with a cache", "check", generation),
        Part("one rank of NCCL", "check", one_rank),
        *gpu_ranks.checks(),
        Part("out of memory", "check", out_of_memory, 20, 180),
    ]


def slow_parts() -> list[Part]:
    return [
        Part("killed and resumed", "check", killed_and_resumed, 30, 240),
        Part("compiled layers", "check", compiled_layers, 20, 240, may_be_left_out=True),
    ]


def environment(bench: Bench) -> dict[str, Any]:
    """The card, and what a run would choose on it."""
    dtype = choose_dtype("auto", bench.device, width=512)
    model = new_model(small_model(), bench.device)
    said = {
        "device": describe(bench.device, dtype),
        "attention": model.model.describe_attention(bench.device, dtype),
    }
    if bench.is_gpu:
        properties = torch.cuda.get_device_properties(0)
        said |= {
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": _driver(),
        }
        if properties.major >= 8:
            assert "varlen kernel" in said["attention"], said["attention"]
    return said


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def attention(bench: Bench) -> dict[str, Any]:
    """Forward and gradients of the packed kernel beside the definition in float32."""
    sizes = sorted(
        {(m.head_size, m.num_attention_heads // m.num_key_value_heads) for m in models()}
    )
    found = {}
    for D, groups in [*sizes, (128, 8)] if bench.is_gpu else sizes[:2]:
        heads, kv = 2 * groups, 2
        why = attention_backends.varlen_unavailable(bench.device, bench.half, heads, kv, D)
        if bench.is_gpu and why is not None:
            if torch.cuda.get_device_capability()[0] < 8:
                raise SkipPart(why)
            raise AssertionError(f"head size {D}: {why}")
        ids = random_batch(9, 3, 257).document_ids
        assert ids is not None
        generator = torch.Generator().manual_seed(D)
        q, k, v, grad = (
            torch.randn(3, n, 257, D, generator=generator).to(bench.device, bench.half)
            for n in (heads, kv, kv, heads)
        )
        inputs = [x.requires_grad_() for x in (q, k, v)]
        if bench.is_gpu:
            cu = to_device(attention_backends.cu_seqlens_of(ids), bench.device)
            out = attention_backends.varlen_attention(
                *inputs, cu, attention_backends.varlen_options()
            ).transpose(1, 2)
        else:
            starts = attention_backends.cu_seqlens_of(ids)
            lengths = tuple(starts.diff().tolist())
            out = attention_backends.per_document_attention(*inputs, lengths).transpose(1, 2)
        grads = torch.autograd.grad(out, inputs, grad)
        exact = [x.detach().float().requires_grad_() for x in inputs]
        wide = [x.repeat_interleave(heads // x.shape[1], 1) for x in exact]
        scores = wide[0] @ wide[1].mT / math.sqrt(D)
        mask = attention_backends.block_causal_mask(ids).to(bench.device)
        expected = scores.masked_fill(~mask, -math.inf).softmax(-1) @ wide[2]
        expected_grads = torch.autograd.grad(expected, exact, grad.float())
        away = worst([out, *grads], [expected, *expected_grads])
        found[f"head size {D}, {groups} queries a key"] = away
        assert away < (0.02 if bench.is_gpu else 1e-4), found
    return found


def models() -> list[Any]:
    """The architecture of every preset, and of every size that --minutes may choose."""
    presets = [load_config(name).model for name in preset_names()]
    ladder = [load_config(**size.values()).model for size in MODEL_SIZES]
    return [*presets, *ladder]


def first_steps(bench: Bench) -> dict[str, Any]:
    """Two steps of every preset and size, two layers deep, in windows of an odd length."""
    names = [*preset_names(), *(f"size {size.hidden_size}" for size in MODEL_SIZES)]
    found = {}
    chosen = list(zip(names, models(), strict=True))
    for name, m in chosen if bench.is_gpu else [x for x in chosen if x[1].hidden_size < 200]:
        config = small_model(
            hidden_size=m.hidden_size,
            num_attention_heads=m.num_attention_heads,
            num_key_value_heads=m.num_key_value_heads,
            head_dim=m.head_dim,
            intermediate_size=m.intermediate_size,
            qk_norm=m.qk_norm,
            vocab_size=m.vocab_size,
            **({} if not m.use_moe else MIXTURE),
        )
        torch.manual_seed(0)
        step = new_step(Transformer(config).to(bench.device), bench.half, dropout=0.1)
        batch = random_batch(m.vocab_size, 4, 203 if bench.is_gpu else 19)
        results = [step(batch.split(2)) for _ in range(2)]
        assert all(r.applied for r in results), (name, results)
        expected = math.log(m.vocab_size)
        assert abs(results[0].loss - expected) < 0.5, (name, results[0].loss, expected)
        found[name] = [round(r.loss, 4) for r in results]
    return found


LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}
ROUTED_TOLERANCE = 5e-2  # of a mixture in half precision: a rounded score chooses another expert


def losses_part(kind: str, name: str) -> Any:
    """The losses of a tiny run beside the CPU's in float32, relative."""

    def run(bench: Bench) -> dict[str, Any]:
        if name == "bfloat16" and bench.is_gpu and torch.cuda.get_device_capability()[0] < 8:
            raise SkipPart("this card has no bfloat16")
        expected = on_the_cpu(kind)
        found = tiny_run(kind, bench.device, getattr(torch, name), micro_batches=2)
        away = max(abs(a - b) / b for a, b in zip(found, expected, strict=True))
        assert found[-1] < 0.9 * found[0], f"the loss does not fall: {found}"
        half_mixture = kind == "mixture" and name != "float32"
        limit = ROUTED_TOLERANCE if half_mixture else LOSS_TOLERANCE[name]
        assert away < limit, f"relative difference {away:.2g}: {found} {expected}"
        return {"relative_difference": away, "first": found[0], "last": found[-1]}

    return run


@functools.cache
def on_the_cpu(kind: str) -> list[float]:
    return tiny_run(kind, CPU, torch.float32, micro_batches=1)


def tiny_run(
    kind: str, device: torch.device, dtype: torch.dtype, micro_batches: int
) -> list[float]:
    """AdamW: Muon's products are bfloat16 on a GPU whatever the run's precision."""
    config = small_model(**KINDS[kind])
    model = new_model(config, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16, init_scale=2.0**10)
    step = new_step(model, dtype, optimizer="adamw", scaler=scaler)
    batches = [random_batch(config.vocab_size, 8, 96, seed) for seed in range(2)]
    losses = []
    load = torch.ones(config.num_hidden_layers, config.num_experts)  # as a run begins
    for number in range(20):
        parts = batches[number % 2].split(micro_batches)
        result = step(parts, reference_load=to_device(load, device) if config.use_moe else None)
        assert result.applied, result
        load = load if result.expert_load is None else result.expert_load
        losses.append(result.loss)
    return losses


def fused_loss(bench: Bench) -> dict[str, Any]:
    """The chunked loss and its gradients beside torch's cross-entropy in float64."""
    found = {}
    half = bench.half if bench.is_gpu else torch.bfloat16
    for dtype in (torch.float32, half):
        for V, H in ((6400, 256), (16411, 128)) if bench.is_gpu else ((700, 32),):
            N = chunk_tokens(bench.device, dtype, V) + 77  # two chunks
            generator = torch.Generator().manual_seed(V)
            hidden = torch.randn(N, H, generator=generator).to(bench.device).requires_grad_()
            weight = (1.5 * H**-0.5 * torch.randn(V, H, generator=generator)).to(bench.device)
            weight.requires_grad_()
            targets = torch.randint(V, (N,), generator=generator).to(bench.device)
            targets[::7] = -100
            with autocast(bench.device, dtype):
                loss = linear_cross_entropy(hidden, weight, targets)
            grads = torch.autograd.grad(loss, (hidden, weight))
            exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
            expected = F.cross_entropy(exact[0] @ exact[1].T, targets, reduction="sum")
            expected_grads = torch.autograd.grad(expected, exact)
            away = worst([loss, *grads], [expected, *expected_grads])
            found[f"{dtype}, vocabulary {V}"] = away
            assert away < (1e-4 if dtype == torch.float32 else 0.03), found
    return found


def loss_with_bigrams(bench: Bench) -> dict[str, Any]:
    """The objective with a text's bigrams and its gradients: beside the CPU's, twice the same."""
    V, H, found = 700, 32, []
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(V, (5000,), generator=generator)
    hidden, weight = (torch.randn(n, H, generator=generator) for n in (len(text) - 1, V))
    for device in (CPU, bench.device, bench.device):
        table = count_bigrams([text.numpy()], V, device)
        given = [x.to(device).requires_grad_() for x in (hidden, weight)]
        soft = BigramTargets(text[:-1].to(device), table, 0.5)
        objective, _ = distillation_loss(*given, text[1:].to(device), soft)
        grads = torch.autograd.grad(objective, given)
        found.append([x.detach().cpu() for x in (objective, *grads)])
    away = worst(found[1], found[0])
    assert away < 1e-4, away
    assert all(map(torch.equal, found[1], found[2])), "the same objective has other bits"
    return {"relative_difference": away}


def muon(bench: Bench) -> dict[str, Any]:
    """Orthogonalised matrices beside the CPU's in float32; their singular values."""
    found = {}
    for shape in ((4, 512, 1408), (3, 768, 256), (2, 256, 256)):
        if not bench.is_gpu:
            shape = (2, shape[1] // 8, shape[2] // 8)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        ours, exact = orthogonalize(x.to(bench.device)).cpu(), orthogonalize(x)
        cosine = float(F.cosine_similarity(ours.flatten(), exact.flatten(), dim=0))
        values = torch.linalg.svdvals(ours)
        found[f"{shape}"] = {"cosine": cosine, "largest": float(values.max())}
        assert ours.dtype == torch.float32 and cosine > 0.99 and float(values.max()) < 1.4, found
    return found


def float16_scaler(bench: Bench) -> dict[str, Any]:
    """A scale that is too large costs an update and is halved; then training goes on."""
    model = new_model(small_model(), bench.device)
    scaler = torch.amp.GradScaler(bench.device.type, init_scale=2.0**30)
    step = new_step(model, torch.float16, scaler=scaler)
    batch = random_batch(512, 4, 64)
    before = [p.detach().clone() for p in model.parameters()]
    assert not step([batch]).applied and scaler.get_scale() == 2.0**29
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    results = [step([batch]) for _ in range(30)]
    applied = [r for r in results if r.applied]
    assert applied and results[-1].applied, "the scaler has found no scale"
    assert applied[-1].loss < applied[0].loss
    return {"refused": 1 + len(results) - len(applied), "scale": scaler.get_scale()}


def grouped_products(bench: Bench) -> dict[str, Any]:
    """The grouped kernel beside one product for each expert; busy, idle and uneven experts."""
    E, H, width = 8, 192, 256
    sizes = [1, 400, 0, 3, 77, 1, 30, 8]
    sizes[2] = 1  # an expert without tokens still gets its one extra row
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(sum(sizes), H, generator=generator).to(bench.device, bench.half)
    weights = (H**-0.5 * torch.randn(E, width, H, generator=generator)).to(bench.device)
    ends = torch.tensor(sizes).cumsum(0).int().to(bench.device)
    results = []
    for function in (grouped.grouped_linear, grouped._loop):
        x, w = rows.clone().requires_grad_(), weights.clone().requires_grad_()
        matrices = w if function is grouped.grouped_linear else w.to(x.dtype)
        out = function(x, matrices, ends)
        out.float().square().sum().backward()
        assert x.grad is not None and w.grad is not None
        results.append([out, x.grad, w.grad])
    away = worst(*results)
    kernel = grouped.has_kernel(bench.device, bench.half, weights)
    assert away < 0.02, away
    return {"relative_difference": away, "kernel": kernel}


def host_reads(bench: Bench) -> dict[str, Any]:
    """How often the host waits for the GPU in a step, by torch's own count."""
    if not bench.is_gpu:
        raise SkipPart("only a GPU is waited for")
    found = {}
    for kind, changes in KINDS.items():
        config = small_model(**changes)
        step = new_step(new_model(config, bench.device), bench.half, dropout=0.1)
        parts = random_batch(config.vocab_size, 8, 64).split(2)
        for _ in range(2):
            step(parts)
        lone = _synchronisations(lambda: torch.ones(3, device=bench.device).cpu())
        found[kind] = _synchronisations(lambda step=step, parts=parts: step(parts))
        assert found[kind] <= lone, f"{kind}: {found[kind]} waits; one read alone counts {lone}"
    return found


def _synchronisations(call: Any) -> int:
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in caught)


def shared_updates(bench: Bench) -> dict[str, Any]:
    """What rows of an embedding share of an update, and that the same sums have the same bits."""
    pieces = [b"", *(f"{a}{b}{c}".encode() for a in ("", " ") for b in "abAB" for c in "abcdefgh")]
    spelling, ends = spelling_of(pieces), []
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(pieces), 64, generator=generator)
    gradient = torch.randn(start.shape, generator=generator)
    for device in (CPU, bench.device, bench.device):
        table = torch.nn.Parameter(start.clone().to(device))
        table.grad = gradient.to(device)
        updates = SharedUpdates(table, spelling)
        updates.gather()
        updates.shared.data.copy_(updates.shared.grad)
        updates.spread()
        ends.append(table.detach().cpu())
    away = relative(ends[1], ends[0])
    assert away < 1e-5, away
    assert torch.equal(ends[1], ends[2]), "the same sums have other bits"
    return {"relative_difference": away}


def activation_checkpointing(bench: Bench) -> dict[str, Any]:
    """The same gradients from less memory."""
    layers, rows, length = (8, 16, 512) if bench.is_gpu else (2, 2, 32)
    config = small_model(num_hidden_layers=layers, **MIXTURE)
    batch = random_batch(config.vocab_size, rows, length)
    grads, peaks = [], []
    for every in (0, 2, 1):
        model = new_model(config, bench.device)
        model.model.recompute_every = every
        if bench.is_gpu:
            torch.cuda.reset_peak_memory_stats()
        new_step(model, bench.half, grad_clip=0.0)([batch])
        grads.append(gradients(model))
        peaks.append(torch.cuda.max_memory_allocated() if bench.is_gpu else 0)
    # FlashAttention's gradients are sums in no fixed order
    away = max(worst(found, grads[0]) for found in grads[1:])
    assert away < (0.01 if bench.is_gpu else 1e-6), away
    assert peaks == sorted(peaks, reverse=True), peaks
    return {"relative_difference": away, "peak_bytes": peaks}


def generation(bench: Bench) -> dict[str, Any]:
    """Logits with and without a cache, and the greedy text of both."""
    from jielong.generation.generate import TextGenerator
    from jielong.tokenization.tokenizer import train_tokenizer

    texts = [json.loads(line)["text"] for line in corpus(bench.folder).open()]
    tokenizer = train_tokenizer(texts, 400, 2**20)
    config = small_model(vocab_size=tokenizer.vocab_size)
    model = new_model(config, bench.device).eval()
    prompt = texts[0][:30]
    ids = [i for i in [tokenizer.bos_id] if i is not None] + tokenizer.encode(prompt)
    greedy = Sampling(temperature=0.0, repetition_penalty=1.0)
    written = "".join(TextGenerator(model, tokenizer).stream(prompt, 24, greedy, False))
    forbidden = {tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id} - {None}
    with torch.inference_mode():
        tokens = list(ids)
        for _ in range(24):
            logits = model(torch.tensor([tokens], device=bench.device)).logits[0, -1]
            logits[list(forbidden)] = -math.inf
            tokens.append(int(logits.argmax()))
        whole = model(torch.tensor([tokens], device=bench.device)).logits[0]
        cache = KVCache(config, 1, len(tokens), bench.device)
        steps = [
            model(torch.tensor([[t]], device=bench.device), cache=cache).logits[0, -1]
            for t in tokens
        ]
    away = relative(torch.stack(steps), whole)
    assert away < 1e-4, away
    expected = tokenizer.decode(tokens[len(ids) :], skip_special=True)
    assert written.strip() == expected.strip(), (written, expected)
    return {"relative_difference": away}


def one_rank(bench: Bench) -> dict[str, Any]:
    """A step that sums its gradients in a process group of one, and its barrier."""
    from jielong.runtime.gradients import GradientSum

    with gpu_ranks.group_of_one(bench) as backend:
        config = small_model(**MIXTURE)
        batches = random_batch(config.vocab_size, 4, 64).split(2)
        alone, ranked = (new_model(config, bench.device) for _ in range(2))
        expected = new_step(alone, bench.half, grad_clip=0.0)(batches)
        # a world of two with one member: sums are asked for, of one rank
        world = gpu_ranks.PAIR
        step = new_step(ranked, bench.half, grad_clip=0.0)
        step.gradients, step.world = GradientSum(ranked.parameters(), world), world
        found = step(batches)
        assert found.tokens == expected.tokens
        assert abs(found.loss - expected.loss) < 1e-3 * expected.loss, (found, expected)
        away = worst(gradients(ranked), gradients(alone))
        assert away < (0.01 if bench.is_gpu else 1e-5), away
        assert world.any_rank(True, False) == [True, False] and world.sum_number(2.5) == 2.5
        world.barrier()
        return {"backend": backend, "relative_difference": away}


def out_of_memory(bench: Bench) -> dict[str, Any]:
    """A run whose batch does not fit halves its micro-batch, and learns the same."""
    from jielong.training.pretrain import pretrain

    settings: dict[str, Any] = run_settings(bench) | {"steps": 3, "validation_fraction": 0.0}
    if bench.is_gpu:
        settings |= {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8}
        settings |= {"max_seq_len": 512, "global_batch_size": 64}
    ends, said = [], ""
    for name in ("plenty", "little"):
        values = settings | {"out_dir": str(bench.folder / name)}
        output = io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(output))
            if name == "little":
                stack.enter_context(little_memory(bench))
            elif bench.is_gpu:
                torch.cuda.reset_peak_memory_stats()
            pretrain(load_config(**values))
        said = output.getvalue()
        lines = (bench.folder / name / "metrics.jsonl").read_text().splitlines()
        ends.append([r["loss"] for r in map(json.loads, lines) if r["kind"] == "train"])
    assert "out of memory at step 1: micro-batches of" in said, said[-600:]
    away = max(abs(a - b) / b for a, b in zip(*ends, strict=True))
    assert away < 0.02, ends
    return {"relative_difference": away, "said": said.count("out of memory at step")}


@contextlib.contextmanager
def little_memory(bench: Bench) -> Any:
    """Within, less memory than the run before took: 0.7 of its peak, or 3 rows on a CPU."""
    if bench.is_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        peak = torch.cuda.max_memory_allocated()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.7 * peak / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    forward = Transformer.forward

    def refusing(self: Transformer, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("out of memory, as rehearsed")
        return forward(self, tokens, *args, **kwargs)

    Transformer.forward = refusing  # type: ignore[method-assign]
    try:
        yield
    finally:
        Transformer.forward = forward  # type: ignore[method-assign]


def run_settings(bench: Bench) -> dict[str, Any]:
    """Of whole runs, of a second each."""
    return {
        "data_path": str(corpus(bench.folder)),
        "vocab_size": 400,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_seq_len": 64,
        "global_batch_size": 16,
        "steps": 12,
        "save_interval": 4,
        "log_interval": 1,
        "sample_tokens": 0,
        "device": bench.device.type,
        "compile": "off",
    }


def killed_and_resumed(bench: Bench) -> dict[str, Any]:
    """Whole runs as processes: one killed in its seventh step and resumed ends as one that was not.

    To the same bits with torch's deterministic algorithms; whether plain runs are so too is told.
    """
    settings = run_settings(bench)
    names = ["whole", "killed"] + ["plain 1", "plain 2"] * (bench.is_gpu and not bench.quick)
    running = {
        name: start_child(bench, settings, name, kill=name == "killed", exact="plain" not in name)
        for name in names
    }
    ends = {name: process.communicate()[0] for name, process in running.items()}
    status = running["killed"].returncode
    assert status == -signal.SIGKILL, f"not killed: status {status}\n{ends['killed'][-800:]}"
    resumed = start_child(bench, settings, "killed", kill=False, exact=True)
    ends["killed"] = resumed.communicate()[0]
    running["killed"] = resumed
    for name, process in running.items():
        assert process.returncode == 0, f"{name}: status {process.returncode}\n{ends[name][-800:]}"
    assert "resuming from" in ends["killed"], ends["killed"][-800:]
    sums = {name: weights_hash(bench.folder / name) for name in running}
    assert sums["killed"] == sums["whole"], f"other bits after the kill: {sums}"
    found: dict[str, Any] = {"bit_identical": True}
    if "plain 1" in sums:
        found["plain_runs_are_bit_identical"] = sums["plain 1"] == sums["plain 2"]
    return found


def start_child(
    bench: Bench, settings: dict[str, Any], name: str, kill: bool, exact: bool
) -> subprocess.Popen[str]:
    job = {"settings": settings | {"out_dir": str(bench.folder / name)}, "exact": exact}
    file = bench.folder / f"{name}-{kill}.json"
    file.write_text(json.dumps(job | {"die_at": 7 if kill else None}))
    script = Path(__file__).with_name("gpu.py")
    return subprocess.Popen(
        [sys.executable, str(script), "--device", bench.device.type, "--run", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_child(job: dict[str, Any]) -> int:
    """A run in this process, which kills itself when the step `die_at` begins."""
    from jielong.training.pretrain import pretrain

    if job["exact"]:
        # strictly: FlashAttention's backward pass keeps its order in no other mode
        torch.use_deterministic_algorithms(True)
    step, calls = TrainStep.__call__, 0

    def counted(self: TrainStep, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == job["die_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    TrainStep.__call__ = counted  # type: ignore[method-assign]
    pretrain(load_config(**job["settings"]))
    return 0


def weights_hash(run: Path) -> str:
    from jielong.checkpoint.checkpoint import find_model_folder

    weights = find_model_folder(run, "last") / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def compiled_layers(bench: Bench) -> dict[str, Any]:
    """torch.compile gives what eager layers give, dense and as a mixture."""
    from jielong.training.compilation import compile_layers

    found = {}
    kinds = KINDS if bench.is_gpu and not bench.quick else {"dense": {}}
    for kind, changes in kinds.items():
        config = small_model(**changes)
        batch = random_batch(config.vocab_size, 4, 64)
        results = []
        for compiled in (False, True):
            model = new_model(config, bench.device)
            if compiled:
                problem = compile_layers(model, batch, bench.half)
                assert problem is None, problem
            step = new_step(model, bench.half, grad_clip=0.0)
            results.append((step([batch]), gradients(model)))
        (eager, expected), (fast, grads) = results
        away = relative(*(torch.cat([g.flatten() for g in gs]) for gs in (grads, expected)))
        found[kind] = {"gradients": away, "losses": [eager.loss, fast.loss]}
        assert away < (0.05 if bench.is_gpu else 1e-3), found
        assert abs(fast.loss - eager.loss) < 0.01 * eager.loss, found
    torch._dynamo.reset()
    return found
