"""The kernel for packed documents, with a stand-in where there is no GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import varlen

from jielong.model import documents
from jielong.model.attention import Attention
from jielong.model.documents import attention_mask, document_starts, packs
from jielong.model.transformer import Transformer
from jielong.model_config import ModelConfig
from tiny import random_batch, tiny_model

IDS = torch.tensor([[4, 4, 4, 7, 7, 9, 9, 9], [4, 4, 4, 4, 4, 4, 4, 5]])
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def stand_in(
    q: Tensor, k: Tensor, v: Tensor, begin: Tensor, end: Tensor, *_: int, **how: Any
) -> Tensor:
    """What the kernel is documented to compute: q (tokens, H, D), k, v (tokens, KV, D)."""
    assert how == {"window_size": (-1, 0), "enable_gqa": True} and torch.equal(begin, end)
    assert begin.dtype == torch.int32
    lengths = begin.diff().tolist()
    outs = []
    for parts in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        one = (x.transpose(0, 1)[None] for x in parts)
        out = F.scaled_dot_product_attention(*one, is_causal=True, enable_gqa=True)
        outs.append(out[0].transpose(0, 1))
    return torch.cat(outs)


def test_starts_of_documents_row_after_row() -> None:
    assert document_starts(IDS).tolist() == [0, 3, 5, 8, 15, 16]
    assert document_starts(torch.zeros(2, 3)).tolist() == [0, 3, 6]


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

    def kernel(*args: Any, **how: Any) -> Tensor:
        calls.append(args)
        return stand_in(*args, **how)

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setattr("jielong.model.transformer.packs", lambda *_: True)
    packed_loss, packed = loss_and_gradients(tiny_model())
    assert len(calls) == tiny_model().config.num_hidden_layers
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert packed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-4, atol=1e-4)


def across(q: Tensor, k: Tensor, v: Tensor, begin: Tensor, *rest: Any, **how: Any) -> Tensor:
    """A kernel that takes all documents for one."""
    ends = begin[[0, -1]]
    return stand_in(q, k, v, ends, ends, **how)


def without_gradient(q: Tensor, *rest: Any, **how: Any) -> Tensor:
    return stand_in(q.detach(), *rest, **how)


def too_old(*_: Tensor) -> Tensor:
    raise AssertionError("not reached: takes no keywords")


@pytest.mark.parametrize(
    ("kernel", "agrees"),
    [(stand_in, True), (across, False), (without_gradient, False), (too_old, False)],
)
def test_a_kernel_is_tried_against_a_mask_before_it_is_used(
    kernel: Any, agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert documents._agrees_with_mask(CPU, torch.bfloat16, 4, 2, 16) is agrees
    assert torch.equal(torch.get_rng_state(), state)


def test_only_a_gpu_in_half_precision_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(documents, "_agrees_with_mask", lambda *a: not tried.append(a))
    try:
        assert not packs(CPU, torch.bfloat16, 4, 2, 16)
        assert not packs(GPU, torch.float32, 4, 2, 16) and not tried
        assert packs(GPU, torch.bfloat16, 4, 2, 16) and packs(GPU, torch.bfloat16, 4, 2, 16)
        assert len(tried) == 1
    finally:
        packs.cache_clear()


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
        layer, turn = Attention(config, 0), torch.ones(8, 8)
        x, ids = torch.zeros(2, 8, 32), torch.zeros(2, 8)
        assert layer(x, (turn, turn), attention_mask(ids)).shape == x.shape
        layer(x, (turn, turn))
    assert [k[1] for _, k, v in seen] == [v[1] for _, k, v in seen] == [4, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on a GPU")
def test_the_kernel_itself_agrees() -> None:
    assert packs(torch.device("cuda", 0), torch.bfloat16, 8, 2, 64)
