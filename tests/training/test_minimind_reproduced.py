"""The preset `minimind` against MiniMind's training, written here from its formulas in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tokenizers
import torch
import torch.nn.functional as F
from torch import Tensor

from jielong.api import pretrain
from jielong.checkpoint.checkpoint import write_model_folder
from jielong.config.load import load_config
from jielong.config.model import ModelConfig
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.schedule import Schedule
from tiny import TEXTS, with_random_weights

LEARNING_RATE = 5e-4  # as MiniMind's users give it: its cosine begins at 1.1 times that
UPDATES, LENGTH, HEADS, KV_HEADS, LAYERS = 30, 24, 4, 2, 2
SIZES = ModelConfig(
    hidden_size=64,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=KV_HEADS,
    intermediate_size=160,
    max_position_embeddings=LENGTH,
    qk_norm=False,
    rope_theta=1e6,
    rms_norm_eps=1e-5,
)


def norm(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def rotate(x: Tensor) -> Tensor:
    """RoPE of x (B, heads, T, D): dimensions i and i + D/2 turn by position · θ^(−2i/D)."""
    T, D = x.shape[-2:]
    angles = torch.arange(T)[:, None] * 1e6 ** -(torch.arange(0, D, 2).double() / D)  # (T, D/2)
    pairs = torch.complex(x[..., : D // 2], x[..., D // 2 :])
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def attend(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    def heads(part: str, count: int) -> Tensor:
        projected = x @ w[f"{name}.{part}_proj.weight"].T
        return projected.unflatten(-1, (count, -1)).transpose(1, 2)  # (B, count, T, D)

    q, k, v = heads("q", HEADS), heads("k", KV_HEADS), heads("v", KV_HEADS)
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
    scores = rotate(q) @ rotate(k).mT / math.sqrt(q.shape[-1])
    hidden = torch.full_like(scores, -math.inf).triu(1)  # the future
    out = (scores + hidden).softmax(-1) @ v
    return out.transpose(1, 2).flatten(2) @ w[f"{name}.o_proj.weight"].T


def logits_of(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """A Llama with tied embeddings: (B, T) ids → (B, T, V)."""
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        x = x + attend(w, f"{layer}.self_attn", norm(x, w[f"{layer}.input_layernorm.weight"]))
        h = norm(x, w[f"{layer}.post_attention_layernorm.weight"])
        gate, up, down = (w[f"{layer}.mlp.{p}_proj.weight"].T for p in ("gate", "up", "down"))
        x = x + (F.silu(h @ gate) * (h @ up)) @ down
    return norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


def padded_rows(texts: list[str], folder: Path) -> tuple[Tensor, Tensor]:
    """Each text from its start token to its end, cut and padded to LENGTH; and which ids count."""
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    counts = torch.zeros(len(texts), LENGTH, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids = backend.encode(text, add_special_tokens=False).ids
        ids = [1, *ids[: LENGTH - 2], 2]
        rows[row, : len(ids)] = torch.tensor(ids)
        counts[row, : len(ids)] = True
    return rows, counts


def trained_by_formula(
    weights: dict[str, Tensor], rows: Tensor, counts: Tensor, batch_size: int, accumulation: int
) -> tuple[list[float], list[float]]:
    """Loss and learning rate of each update of an epoch, as MiniMind's script goes about it."""
    w = {name: t.double().requires_grad_() for name, t in weights.items()}
    optimizer = torch.optim.AdamW(w.values(), lr=LEARNING_RATE)
    losses, rates, mean = [], [], 0.0
    iterations = -(-len(rows) // batch_size)
    for t in range(iterations):
        rate = LEARNING_RATE / 10
        # by updates: the script counts micro-batches, and so is up to one update further on
        share = (t // accumulation) / (iterations // accumulation)
        rate += 0.5 * LEARNING_RATE * (1 + math.cos(math.pi * share))
        optimizer.param_groups[0]["lr"] = rate
        some = slice(t * batch_size, (t + 1) * batch_size)
        logits = logits_of(w, rows[some, :-1])
        nats = F.cross_entropy(logits.flatten(0, 1), rows[some, 1:].flatten(), reduction="none")
        mask = counts[some, 1:].flatten()
        loss = (nats * mask).sum() / mask.sum() / accumulation
        loss.backward()
        mean += float(loss.detach())
        if (t + 1) % accumulation == 0:
            torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(mean)
            rates.append(rate)
            mean = 0.0
    return losses, rates


def long_texts(count: int) -> list[str]:
    return [f"Tale {i}: " + " ".join(f"word{i * j % 17}" for j in range(40)) for i in range(count)]


@pytest.mark.parametrize(
    ("texts", "batch_size", "accumulation"),
    [
        # the last batch of the epoch is a partial one
        ([f"{i} {TEXTS[i % 60]}" for i in range(UPDATES * 4 - 1)], 4, 1),
        # the script averages the means of its micro-batches, jielong takes the mean over all
        # targets: the same only where rows are equally full
        (long_texts(UPDATES * 8), 2, 4),
    ],
    ids=["accumulation 1", "accumulation 4"],
)
def test_losses_are_those_of_the_script_in_every_update(
    texts: list[str], batch_size: int, accumulation: int, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = Transformer(ModelConfig(**vars(SIZES) | {"vocab_size": tokenizer.vocab_size}))
    with_random_weights(model)
    start, corpus = tmp_path / "start", tmp_path / "corpus.jsonl"
    start.mkdir()
    write_model_folder(start, model, tokenizer)
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = {
        "preset": "minimind",
        "data_path": str(corpus),
        "init_from": str(start),
        "out_dir": str(tmp_path / "run"),
        "max_seq_len": LENGTH,
        "batch_size": batch_size,
        "accumulation_steps": accumulation,
        "log_interval": 1,
        "device": "cpu",
        "dtype": "float32",
    }
    result = pretrain(settings, quiet=True)
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    ours = [r for r in map(json.loads, lines) if r["kind"] == "train"]

    weights = {n: p.detach() for n, p in model.named_parameters()}
    rows, counts = padded_rows(texts, start)
    assert counts.all() or accumulation == 1
    losses, rates = trained_by_formula(weights, rows, counts, batch_size, accumulation)
    assert len(ours) == len(losses) == UPDATES
    assert losses[-1] < losses[0] - 0.5  # it learns, so a wrong update would show
    assert [r["loss"] for r in ours] == pytest.approx(losses, abs=1e-3)
    assert [r["learning_rate"] for r in ours] == pytest.approx(rates, rel=1e-9)


def test_the_presets_cosine_is_the_scripts() -> None:
    training = load_config("minimind").training
    assert training.learning_rate is not None
    for total in (1, 7, 1000):
        schedule = Schedule.of(training, total)
        for step in range(total):
            theirs = 5e-4 / 10 + 0.5 * 5e-4 * (1 + math.cos(math.pi * step / total))
            ours = training.learning_rate * schedule.lr_scale(step)
            assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_preset_has_the_scripts_settings() -> None:
    config = load_config("minimind")
    t, m = config.training, config.model
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).defaults
    assert t.optimizer == "adamw" and t.grad_clip == 1.0
    assert ((t.beta1, t.beta2), t.adam_eps) == (adamw["betas"], adamw["eps"])
    assert t.weight_decay == adamw["weight_decay"]
    assert (t.global_batch_size, t.micro_batch_size, t.epochs) == (32 * 8, 32, 1)
    assert (config.data.packing, config.data.shuffle) == ("pad", False)
    assert config.data.validation_fraction == 0  # it trains on every line
    assert config.data.max_seq_len == 512
    assert not m.qk_norm and m.tie_word_embeddings
    assert (m.rope_theta, m.rms_norm_eps) == (1e6, 1e-5)
    assert round(Transformer(m).num_parameters() / 1e6, 3) == 25.83
