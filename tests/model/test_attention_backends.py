"""The kernel for packed documents, with a stand-in where there is no GPU."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import varlen

from jielong.config.model import ModelConfig
from jielong.model import attention_backends
from jielong.model.attention import Attention
from jielong.model.attention_backends import (
    AttentionPlan,
    block_causal_mask,
    cu_seqlens_of,
    varlen_attention,
    varlen_options,
    varlen_unavailable,
)
from jielong.model.transformer import Transformer
from tiny import random_batch, tiny_model

IDS = torch.tensor([[4, 4, 4, 7, 7, 9, 9, 9], [4, 4, 4, 4, 4, 4, 4, 5]])
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def stand_in(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    begin: Tensor,
    end: Tensor,
    *_: int,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """What the kernel is documented to compute: q (tokens, H, D), k, v (tokens, KV, D)."""
    assert window_size == (-1, 0) and enable_gqa and torch.equal(begin, end)
    assert begin.dtype == torch.int32
    lengths = begin.diff().tolist()
    outs = []
    for parts in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        one = (x.transpose(0, 1)[None] for x in parts)
        out = F.scaled_dot_product_attention(*one, is_causal=True, enable_gqa=True)
        outs.append(out[0].transpose(0, 1))
    return torch.cat(outs)


def test_starts_of_documents_row_after_row() -> None:
    assert cu_seqlens_of(IDS).tolist() == [0, 3, 5, 8, 15, 16]
    assert cu_seqlens_of(torch.zeros(2, 3)).tolist() == [0, 3, 6]


def loss_and_gradients(model: Transformer) -> tuple[float, dict[str, Tensor]]:
    batch = random_batch(2, 8)
    loss = model(batch.tokens, batch.targets, IDS).loss
    assert loss is not None
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_a_model_whose_documents_are_packed_learns_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, gradients = loss_and_gradients(tiny_model())
    calls = []

    @functools.wraps(stand_in)
    def kernel(*args: Any, **how: Any) -> Tensor:
        calls.append(args)
        return stand_in(*args, **how)

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setattr("jielong.model.transformer.varlen_unavailable", lambda *_: None)
    packed_loss, packed = loss_and_gradients(tiny_model())
    assert len(calls) == tiny_model().config.num_hidden_layers
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert packed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-4, atol=1e-4)


@functools.wraps(stand_in)
def across(q: Tensor, k: Tensor, v: Tensor, begin: Tensor, *rest: Any, **how: Any) -> Tensor:
    """A kernel that takes all documents for one."""
    ends = begin[[0, -1]]
    return stand_in(q, k, v, ends, ends, **how)


@functools.wraps(stand_in)
def without_gradient(q: Tensor, *rest: Any, **how: Any) -> Tensor:
    return stand_in(q.detach(), *rest, **how)


def of_torch_2_10(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    begin: Tensor,
    end: Tensor,
    longest: int,
    longest_key: int,
    is_causal: bool = False,
) -> Tensor:
    """Without shared key heads, and with a word of its own for causal attention."""
    assert is_causal and q.shape == k.shape == v.shape
    return stand_in(q, k, v, begin, end, window_size=(-1, 0), enable_gqa=True)


def not_built(*_: Tensor, **how: Any) -> Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer\nand a second line")


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (stand_in, None),
        (of_torch_2_10, None),
        (across, "its results differ from those with a mask"),
        (without_gradient, "it does not run here (RuntimeError: "),
        (not_built, "RuntimeError: FlashAttention only supports Ampere GPUs or newer)"),
    ],
)
def test_a_kernel_is_tried_against_a_mask_and_what_is_wrong_with_it_is_said(
    kernel: Any, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention_backends._compare_with_mask(CPU, torch.bfloat16, 4, 2, 16)
    assert found is None if why is None else why in str(found)
    assert torch.equal(torch.get_rng_state(), state)


def test_only_a_gpu_in_half_precision_is_tried_and_once_for_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(attention_backends, "_compare_with_mask", lambda *a: tried.append(a))
    decoder = tiny_model().model
    assert "NVIDIA" in str(decoder.varlen_unavailable(CPU, torch.bfloat16))
    assert "not float32" in str(decoder.varlen_unavailable(GPU, torch.float32)) and not tried
    assert decoder.varlen_unavailable(GPU, torch.bfloat16) is None
    assert decoder.varlen_unavailable(GPU, torch.bfloat16) is None and len(tried) == 1
    assert tiny_model().model.varlen_unavailable(GPU, torch.bfloat16) is None
    assert len(tried) == 2  # another model asks for itself: nothing is shared


def test_the_kernel_is_given_the_precision_of_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []

    @functools.wraps(stand_in)
    def watched(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **how: Any) -> Tensor:
        seen.extend((q.dtype, k.dtype, v.dtype))
        return stand_in(q, k, v, *rest, **how)

    monkeypatch.setattr(varlen, "varlen_attn", watched)
    q, k, v = torch.randn(2, 4, 8, 16), torch.randn(2, 2, 8, 16), torch.randn(2, 2, 8, 16)
    varlen_attention(q, k, v.bfloat16(), cu_seqlens_of(IDS), varlen_options())
    varlen_attention(q.half(), k, v.half(), cu_seqlens_of(IDS), varlen_options())
    assert seen == [torch.bfloat16] * 3 + [torch.float16] * 3


def test_beside_a_mask_other_devices_are_given_a_key_head_for_each_query_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[torch.Size, ...]] = []
    attend = F.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
        seen.append((q.shape, k.shape, v.shape))
        return attend(q, k, v, **how)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    config = ModelConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2)
    with torch.device("meta"):
        layer, angles = Attention(config, 0), torch.ones(8, 8)
        x, ids = torch.zeros(2, 8, 32), torch.zeros(2, 8)
        assert layer(x, (angles, angles), AttentionPlan(block_causal_mask(ids))).shape == x.shape
        layer(x, (angles, angles))
        layer.bfloat16()(x.bfloat16(), (angles, angles))
    # shared only where FlashAttention can serve: no mask, half precision
    assert [k[1] for _, k, v in seen] == [v[1] for _, k, v in seen] == [4, 4, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on a GPU")
def test_the_kernel_itself_agrees() -> None:
    assert varlen_unavailable(torch.device("cuda", 0), torch.bfloat16, 8, 2, 64) is None
