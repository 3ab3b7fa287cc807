"""What a GPU is given, on a machine without one: whole runs of every preset on a fake GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from fake_gpu import FakeGpu, fake_gpu
from torch import nn
from torch.nn.attention import varlen

import jielong
from jielong.checkpoint import checkpoint
from jielong.config.load import load_config, preset_names
from jielong.config.model import ModelConfig
from jielong.data.batches import Batch
from jielong.model.attention_backends import varlen_attention, varlen_options
from jielong.model.loss import CHUNK_TOKENS, GPU_LOGITS_BYTES, chunk_tokens
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from jielong.training.pretrain import pretrain
from jielong.training.result import RunResult
from jielong.training.scaling import MODEL_SIZES, ModelSize
from jielong.training.step import TrainStep
from tiny import TEXTS, new_optimizer, random_batch, split_batch, tiny_config

VARLEN = "torch_attn::_varlen_attn"
HALVES = ("bfloat16", "float16")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch) as mode:
        yield mode


def run(corpus_file: Path, folder: Path, **settings: Any) -> RunResult:
    """Three steps with validation, samples and checkpoints, of a model two layers deep."""
    values: dict[str, Any] = {
        "data_path": str(corpus_file),
        "out_dir": str(folder),
        "vocab_size": 288,
        "num_hidden_layers": 2,
        "max_seq_len": 16,
        "batch_size": 4,
        "steps": 3,
        "validation_fraction": 0.1,
        "eval_interval": 2,
        "sample_tokens": 3,
        "device": "cuda",
    }
    return pretrain(load_config(**(values | settings)), override=True)


def products(gpu: FakeGpu) -> dict[torch.dtype, int]:
    """How many matrix products ran in each precision."""
    counts: dict[torch.dtype, int] = {}
    for (name, dtype), count in gpu.kernels.items():
        if name in ("aten::mm", "aten::_grouped_mm", "aten::addmm", "aten::bmm"):
            counts[dtype] = counts.get(dtype, 0) + count
    return counts


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_trains_and_is_used_on_a_gpu(
    preset: str, dtype: str, gpu: FakeGpu, corpus_file: Path, tmp_path: Path
) -> None:
    result = run(corpus_file, tmp_path / "run", preset=preset, dtype=dtype)
    half = getattr(torch, dtype)
    assert result.step == 3 and result.validation is not None
    assert gpu.kernels[VARLEN, half]
    assert products(gpu)[half] > 50
    checkpoint.verify(result.checkpoint)

    model, tokenizer = jielong.load(result.folder, device="cuda")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.device.type == "cuda"
    assert jielong.evaluate(model, tokenizer, TEXTS[:3]).tokens > 0
    assert isinstance("".join(jielong.generate(model, tokenizer, "Tale", 4)), str)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("preset", ["tiny", "llama-26m", "moe"])
def test_layers_are_traced_for_compiling_and_train_as_before(
    preset: str,
    dtype: str,
    gpu: FakeGpu,
    corpus_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # traced by Dynamo, run as they are: the code generator would need the GPU's own compiler
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    result = run(corpus_file, tmp_path, preset=preset, dtype=dtype, compile="on")
    said = capsys.readouterr().out
    assert "compiling" in said and "does not work here" not in said
    assert result.step == 3 and gpu.kernels[VARLEN, getattr(torch, dtype)]


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        {"document_mask": False},
        {"packing": "pad"},
        {"micro_batch_size": "auto"},
        {"micro_batch_size": 1, "accumulation_steps": 2},
        {"average_weights": False, "tie_word_embeddings": False},
        {"dtype": "float32"},
        {"use_moe": True, "router_aux_loss": "bias", "num_shared_experts": 1},
        {"use_moe": True, "dtype": "float32"},
    ],
    ids=str,
)
def test_other_settings_train_on_a_gpu(
    settings: dict[str, Any], gpu: FakeGpu, corpus_file: Path, tmp_path: Path
) -> None:
    assert run(corpus_file, tmp_path, preset="tiny", **settings).step == 3


def step_on_a_gpu(config: ModelConfig, **settings: Any) -> TrainStep:
    """A model of two layers on the GPU, with what trains it."""
    model = Transformer(dataclasses.replace(config, num_hidden_layers=2)).to("cuda")
    optimizer: Optimizer = new_optimizer(model, tiny_config())
    return TrainStep(model, optimizer, grad_clip=1.0, **({"dtype": torch.bfloat16} | settings))


def packed(rows: int, length: int) -> list[Batch]:
    """Two micro-batches of windows with a document border."""
    batch = random_batch(rows, length)
    ids = (torch.arange(length) > length // 3).int().expand(rows, length)
    seeds = torch.arange(rows)
    return split_batch(dataclasses.replace(batch, document_ids=ids, row_seeds=seeds), 2)


@pytest.mark.parametrize("size", MODEL_SIZES, ids=lambda size: str(size.hidden_size))
def test_every_size_that_minutes_may_choose_takes_the_kernel(size: ModelSize, gpu: FakeGpu) -> None:
    values = {k: v for k, v in size.values().items() if k != "max_seq_len"}
    train_step = step_on_a_gpu(ModelConfig(**values, vocab_size=512).validated())
    batches = packed(2, 37)  # windows whose length is a multiple of nothing
    train_step(batches)  # tries the kernel, beside attention in float32
    gpu.kernels.clear()
    assert train_step(batches).applied
    assert gpu.kernels[VARLEN, torch.bfloat16] == 4  # two micro-batches, two layers
    assert products(gpu).keys() == {torch.bfloat16}


@pytest.mark.parametrize(
    "changes",
    [{}, {"use_moe": True, "num_experts_per_tok": 2, "moe_intermediate_size": 64}],
    ids=["dense", "mixture"],
)
def test_the_host_waits_for_the_gpu_once_in_a_step(changes: dict[str, Any], gpu: FakeGpu) -> None:
    config = ModelConfig(hidden_size=64, num_attention_heads=2, num_key_value_heads=1, **changes)
    train_step = step_on_a_gpu(config.validated(), dropout=0.1)
    train_step(packed(4, 16))  # tries the kernel
    before = gpu.host_reads
    train_step(packed(4, 16))
    assert gpu.host_reads - before == 1


def test_the_loss_takes_as_many_tokens_at_once_as_the_device_has_room_for() -> None:
    cpu, gpu, half = torch.device("cpu"), torch.device("cuda"), torch.bfloat16
    assert chunk_tokens(cpu, torch.float32, 6400) == CHUNK_TOKENS
    assert chunk_tokens(gpu, half, 6400) * 6400 * 4 == pytest.approx(GPU_LOGITS_BYTES, rel=0.1)
    assert chunk_tokens(gpu, half, 2**20) == CHUNK_TOKENS  # never none
    assert chunk_tokens(gpu, torch.float16, 6400) == CHUNK_TOKENS  # sums in float16 can overflow


def test_layers_are_computed_again_on_a_gpu(gpu: FakeGpu) -> None:
    config = ModelConfig(hidden_size=64, num_attention_heads=2, num_key_value_heads=1, use_moe=True)
    train_step = step_on_a_gpu(config.validated(), dropout=0.1)
    batches = packed(4, 16)
    train_step(batches)  # tries the kernel
    for every, calls in ((2, 6), (1, 8)):  # of the kernel, instead of 4: micro-batches × layers
        cast(Transformer, train_step.model).model.recompute_every = every
        gpu.kernels.clear()
        assert train_step(batches).applied
        assert gpu.kernels[VARLEN, torch.bfloat16] == calls


def test_resuming_on_a_gpu(gpu: FakeGpu, corpus_file: Path, tmp_path: Path) -> None:
    run(corpus_file, tmp_path, preset="moe", dtype="float16")
    more = run(corpus_file, tmp_path, preset="moe", dtype="float16", steps=5)
    assert more.step == 5


def test_the_first_lines_say_which_attention_is_used_and_why(
    gpu: FakeGpu, corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(corpus_file, tmp_path / "half", preset="tiny")
    assert "varlen kernel (FlashAttention)" in capsys.readouterr().out
    run(corpus_file, tmp_path / "float32", preset="tiny", dtype="float32")
    said = capsys.readouterr().out
    assert "attention  masked" in said and "needs bfloat16 or float16, not float32" in said


def test_the_kernel_is_given_one_precision(gpu: FakeGpu) -> None:
    q, k, v = (torch.zeros(2, heads, 8, 16, device="cuda") for heads in (4, 2, 2))
    starts = torch.tensor([0, 8, 16], dtype=torch.int32, device="cuda")
    out = varlen_attention(q, k, v.bfloat16(), starts, varlen_options())
    assert out.dtype == torch.bfloat16 and out.shape == (2, 8, 4, 16)


def test_the_fake_gpu_refuses_what_a_gpu_refuses(gpu: FakeGpu) -> None:
    q, k = torch.zeros(16, 4, 16, device="cuda"), torch.zeros(16, 2, 16, device="cuda")
    starts = torch.tensor([0, 8, 16], dtype=torch.int32, device="cuda")
    with pytest.raises(AssertionError, match="varlen"):  # two precisions
        varlen.varlen_attn(q, q, q.bfloat16(), starts, starts, 8, 8)
    with pytest.raises(AssertionError, match="tensors on"):  # two devices
        q + torch.zeros(16, 4, 16)
    with pytest.raises(AssertionError):  # torch would compute a (T, T) matrix of scores
        mask = torch.ones(16, 16, dtype=torch.bool, device="cuda")
        rows = (x.transpose(0, 1)[None] for x in (q, k, k))
        F.scaled_dot_product_attention(*rows, attn_mask=mask, enable_gqa=True)
    with torch.autocast("cuda", torch.bfloat16), pytest.raises(AssertionError, match="outside"):
        torch.zeros(3, device="cuda", requires_grad=True).sum().backward()
