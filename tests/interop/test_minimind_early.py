"""MiniMind's checkpoints of before May 2025, against its forward pass written out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jielong.checkpoint.checkpoint import load_model
from jielong.errors import CheckpointError
from jielong.interop.minimind import import_minimind
from jielong.tokenization.tokenizer import Tokenizer

HIDDEN, LAYERS, HEADS, KV_HEADS, WIDTH, EPS, THETA = 64, 2, 8, 2, 96, 1e-5, 1e6
EXPERTS, CHOSEN = 4, 2


def early_state(vocab: int, experts: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int = HIDDEN) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * 2 * columns**-0.5

    def norm() -> Tensor:
        return 1 + 0.2 * torch.randn(HIDDEN, generator=generator)

    state = {"tok_embeddings.weight": matrix(vocab), "norm.weight": norm()}
    state["output.weight"] = state["tok_embeddings.weight"]
    for layer in (f"layers.{i}." for i in range(LAYERS)):
        for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS), ("o", HEADS)):
            state[f"{layer}attention.w{name}.weight"] = matrix(rows * HIDDEN // HEADS)
        state[f"{layer}attention.mask"] = torch.full((1, 1, 8, 8), -torch.inf).triu(1)
        state |= {f"{layer}{name}.weight": norm() for name in ("attention_norm", "ffn_norm")}
        parts = [f"{layer}feed_forward."]
        if experts:
            state[f"{layer}feed_forward.gate.weight"] = matrix(EXPERTS)
            parts = [f"{parts[0]}experts.{i}." for i in range(EXPERTS)]
            parts.append(f"{layer}feed_forward.shared_experts.")
        for part in parts:
            sizes = {"w1": (WIDTH, HIDDEN), "w2": (HIDDEN, WIDTH), "w3": (WIDTH, HIDDEN)}
            state |= {f"{part}{name}.weight": matrix(*size) for name, size in sizes.items()}
    state["pos_cis"] = torch.ones(8, 4, dtype=torch.complex64)
    return state


def early_logits(state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The forward pass of `MiniMindLM`: (T,) ids to (T, V)."""
    T, D = len(ids), HIDDEN // HEADS
    frequencies = THETA ** -(torch.arange(0, D, 2).float() / D)
    turns = torch.polar(torch.ones(T, D // 2), torch.outer(torch.arange(T).float(), frequencies))

    def norm(x: Tensor, name: str) -> Tensor:
        scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
        return scaled * state[f"{name}.weight"]

    def rotated(x: Tensor) -> Tensor:  # (T, heads, D), pairs are adjacent
        pairs = torch.view_as_complex(x.reshape(T, -1, D // 2, 2)) * turns[:, None]
        return torch.view_as_real(pairs).flatten(2)

    def feed_forward(x: Tensor, part: str) -> Tensor:
        gate = F.silu(x @ state[f"{part}w1.weight"].T)
        return (gate * (x @ state[f"{part}w3.weight"].T)) @ state[f"{part}w2.weight"].T

    x = state["tok_embeddings.weight"][ids]
    for layer in (f"layers.{i}." for i in range(LAYERS)):
        h = norm(x, f"{layer}attention_norm")
        q, k, v = (
            (h @ state[f"{layer}attention.w{name}.weight"].T).view(T, -1, D) for name in "qkv"
        )
        q, k = rotated(q), rotated(k)
        k, v = (z.repeat_interleave(HEADS // KV_HEADS, dim=1) for z in (k, v))
        scores = torch.einsum("thd,shd->hts", q, k) / D**0.5
        scores = scores + torch.full((T, T), -torch.inf).triu(1)
        h = torch.einsum("hts,shd->thd", scores.softmax(-1), v).reshape(T, HIDDEN)
        x = x + h @ state[f"{layer}attention.wo.weight"].T
        h, part = norm(x, f"{layer}ffn_norm"), f"{layer}feed_forward."
        if f"{part}gate.weight" not in state:
            x = x + feed_forward(h, part)
            continue
        weights, chosen = (h @ state[f"{part}gate.weight"].T).softmax(-1).topk(CHOSEN)
        weights = weights / weights.sum(-1, keepdim=True)
        rows = [
            sum(
                w * feed_forward(row, f"{part}experts.{int(e)}.")
                for w, e in zip(ws, es, strict=True)
            )
            for row, ws, es in zip(h, weights, chosen, strict=True)
        ]
        x = x + torch.stack(rows) + feed_forward(h, f"{part}shared_experts.")
    return norm(x, "norm") @ state["output.weight"].T


@pytest.mark.parametrize("experts", [False, True])
def test_an_early_checkpoint_gives_the_logits_of_its_forward_pass(
    experts: bool, tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    state = early_state(tokenizer.vocab_size, experts)
    torch.save(state, tmp_path / "full.pth")
    found = import_minimind(tmp_path / "full.pth", tokenizer_dir, tmp_path / "out")
    assert found.family == "MiniMind2 (before May 2025)"
    model, _ = load_model(tmp_path / "out")
    ids = torch.randint(3, tokenizer.vocab_size, (13,), generator=torch.Generator().manual_seed(1))
    expected = early_logits(state, ids)
    assert expected.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(model(ids[None]).logits[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module.", "module."])
@pytest.mark.parametrize("key", [None, "model", "model_state_dict", "state_dict"])
def test_wrappers_are_stripped_in_any_order(
    prefix: str, key: str | None, tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    state = {prefix + name: v for name, v in early_state(tokenizer.vocab_size).items()}
    torch.save(state if key is None else {key: state, "epoch": 1}, tmp_path / "wrapped.pth")
    import_minimind(tmp_path / "wrapped.pth", tokenizer_dir, tmp_path / "out")
    torch.save(early_state(tokenizer.vocab_size), tmp_path / "plain.pth")
    import_minimind(tmp_path / "plain.pth", tokenizer_dir, tmp_path / "plain")
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (tmp_path / "plain" / weights).read_bytes()


def test_early_names_of_settings_are_understood(
    tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    torch.save(early_state(tokenizer.vocab_size), tmp_path / "a.pth")
    settings = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 1, "norm_eps": 1e-6}
    (tmp_path / "a.json").write_text(json.dumps(settings))
    found = import_minimind(
        tmp_path / "a.pth", tokenizer_dir, tmp_path / "out", tmp_path / "a.json"
    )
    assert (found.config.num_attention_heads, found.config.head_size) == (4, 16)
    assert found.config.rms_norm_eps == 1e-6


def test_weights_of_neither_family_name_both(tokenizer_dir: Path, tmp_path: Path) -> None:
    torch.save({"transformer.wte.weight": torch.ones(8, 4)}, tmp_path / "gpt.pth")
    with pytest.raises(CheckpointError, match=r"MiniMind2 or 3.*before May 2025.*transformer\.wte"):
        import_minimind(tmp_path / "gpt.pth", tokenizer_dir, tmp_path / "out")
    torch.save({"tok_embeddings.weight": torch.ones(8, 4), "x.y": torch.ones(1)}, tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"x\.y is unexpected"):
        import_minimind(tmp_path / "b", tokenizer_dir, tmp_path / "out")
