"""Small models for the ways in and out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from jielong.config.model import ModelConfig
from jielong.model.transformer import Transformer

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = ModelConfig(
    vocab_size=320,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=96,
    max_position_embeddings=64,
)
LLAMA = dataclasses.replace(TINY, qk_norm=False, rope_theta=1e4, rms_norm_eps=1e-5)
QWEN3_MOE = dataclasses.replace(
    TINY, use_moe=True, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64
)


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model in which every weight matters: none zero, norms not one."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.rand_like(p) + 0.5 if "norm" in name else torch.randn_like(p) * 0.08)
    return model


def some_tokens(rows: int = 2, length: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(3, 320, (rows, length), generator=generator)


HARD_STRINGS = [
    "你好，世界。天地玄黃，宇宙洪荒。",
    "  two leading spaces, two trailing  ",
    "\t\ttabs\n\n\nlines\r\nwindows\n  indented",
    "emoji 🙂👩‍👩‍👧‍👦🇨🇳 and zalgo é̴͓",
    "def f(x: int) -> int:\n    return x**2  # it's 1234567.89\n",
    "I'm, you're, WE'LL, they'd — “quotes” … ½ ² ① ٣",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "<|im_start|> <|im_end|><think>a</think> <|not_special|>",
    "no\u00a0break\u3000wide\u200bzero\x00nul\x7f",
    "ひらがな カタカナ 한국어 العربية हिन्दी ไทย",
    "a",
    " ",
    "\n",
]
