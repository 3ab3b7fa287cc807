"""Prompts are read in bfloat16 where the CPU is faster in it, and only there."""

from __future__ import annotations

import pytest
import torch

from jielong.config.model import ModelConfig
from jielong.model import prompt
from jielong.model.attention import KVCache
from jielong.model.prompt import read
from jielong.model.transformer import MANY_TOKENS, Transformer


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=512,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = Transformer(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1)
    return model


@torch.inference_mode()
def states(model: Transformer, count: int) -> tuple[torch.Tensor, torch.Tensor, KVCache]:
    """Hidden states by `read` and in float32, and the cache that `read` has filled."""
    tokens = torch.randint(512, (1, count), generator=torch.Generator().manual_seed(1))
    cache = KVCache(model.config, 1, count + 1)
    return read(model, tokens, cache), model.hidden_states(tokens), cache


@pytest.mark.parametrize("width", [64, 65])
def test_many_tokens_are_read_in_bfloat16_from_the_width_on_where_it_is_faster(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(prompt, "bfloat16_width", lambda: width)
    found, exact, cache = states(model, MANY_TOKENS)
    assert found.dtype == torch.float32 and cache.length == MANY_TOKENS
    error = float((found - exact).abs().max() / exact.abs().max())
    assert (1e-4 < error < 0.05) if width == 64 else error < 1e-5


def test_few_tokens_are_read_in_full_precision(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt, "bfloat16_width", lambda: 1)
    found, exact, _ = states(model, MANY_TOKENS - 1)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)
