"""Parts, FLOPs and shapes of a model, against torch's own counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jielong.insight.arithmetic import parts_of
from jielong.insight.model import inspect_model
from jielong.model.transformer import Transformer
from jielong.present.words import sayer
from tiny import TINY, tiny_model

KINDS: list[dict[str, Any]] = [
    {},
    {"qk_norm": False, "tie_word_embeddings": False},
    {"head_dim": 16, "num_key_value_heads": 1},
    {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 1},
]


@pytest.mark.parametrize("changes", KINDS)
def test_the_parts_add_up_to_the_model(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(TINY, **changes).validated()
    view = inspect_model(config, window=16)
    model = Transformer(config)
    assert view.parameters == model.num_parameters() == sum(p.parameters for p in view.parts)
    assert view.active_parameters == model.num_active_parameters()
    weights = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for part in view.parts:
        if part.shape and ".experts." not in part.name and part.parameters:
            name = part.name.replace("N.", "layers.0.").replace(".E.", ".0.") + ".weight"
            assert weights.get(f"model.{name}", weights.get(name)) == part.shape


@pytest.mark.parametrize("changes", KINDS[:3])
def test_the_flops_are_those_that_torch_counts(changes: dict[str, Any]) -> None:
    model, window = tiny_model(**changes), 24
    # the kernel of a CPU is not counted: written out, attention is two products of batches
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, window, dtype=torch.int64))
    counts = counter.get_flop_counts()["Global"]
    whole = {"attention": 0, "matrices": 0}
    for operator, flops in counts.items():
        whole["attention" if "bmm" in str(operator) else "matrices"] += flops
    parts = parts_of(model.config, window)
    matrices = sum(p.flops for p in parts if p.shape)
    attention = sum(p.flops for p in parts if not p.shape)
    assert matrices * window == whole["matrices"]
    # torch counts all pairs of tokens, of which a causal model needs those up to the diagonal
    assert attention * window == pytest.approx(whole["attention"] * (window + 1) / (2 * window))


def test_a_token_passes_only_its_own_experts() -> None:
    config = dataclasses.replace(TINY, **KINDS[3]).validated()
    flops = {part.name: part.flops for part in parts_of(config, 16)}
    H, width, layers = config.hidden_size, config.expert_size, config.num_hidden_layers
    assert flops["N.mlp.experts.E.up_proj"] == 2 * H * width * 2 * layers
    assert flops["N.mlp.shared_experts.E.up_proj"] == 2 * H * width * 1 * layers


def test_attention_within_documents_costs_less() -> None:
    def attention(document: float | None) -> float:
        return sum(p.flops for p in parts_of(TINY, 64, document) if not p.shape)

    assert attention(None) == attention(64) == attention(1000)
    assert attention(8) == pytest.approx(attention(64) * 9 / 65)


@pytest.mark.parametrize("changes", KINDS)
def test_a_batch_goes_its_way_with_these_shapes(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(TINY, **changes).validated()
    view = inspect_model(config, window=16, rows=3)
    way = {passage.name: passage for passage in view.way}
    H, heads, D = config.hidden_size, config.num_attention_heads, config.head_size
    assert way["embed_tokens"].inputs == (3, 16) and way["embed_tokens"].outputs == (3, 16, H)
    assert way["N.self_attn.q_proj"].outputs == (3, 16, heads * D)
    assert way["N.self_attn.k_proj"].outputs == (3, 16, config.num_key_value_heads * D)
    assert way["N.self_attn.q_proj"].times == config.num_hidden_layers
    assert way["norm"].outputs == (3, 16, H)
    assert way["lm_head, 48 tokens at a time"].outputs == (48, config.vocab_size)
    if config.use_moe:
        assert way["N.mlp.gate"].outputs == (3, 16, config.num_experts)
        assert way["N.mlp.experts"].inputs == (48, H)
    said = repr(view.page(sayer("zh")))
    assert f"{view.parameters:,}" in said and "参数在哪里" in said


def test_a_model_of_billions_takes_no_memory() -> None:
    config = dataclasses.replace(TINY, hidden_size=8192, num_hidden_layers=80, vocab_size=10**5)
    assert inspect_model(config.validated(), window=16).parameters > 10**10
