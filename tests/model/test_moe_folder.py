"""Model folders of mixtures of experts: read by transformers, or refused by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.checkpoint.checkpoint import load_weights, save_tensors
from jielong.checkpoint.folder import read_model_config, write_model_config
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError
from jielong.model.transformer import Transformer

transformers = pytest.importorskip("transformers")


class NoSpecialTokens:
    bos_id = eos_id = pad_id = None


def make(folder: Path, **changes: Any) -> Transformer:
    """A model with random weights, none of them zero, written to `folder`."""
    values: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 80,
        "max_position_embeddings": 32,
        "use_moe": True,
        "moe_intermediate_size": 48,
    }
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**(values | changes)).validated()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * p.shape[-1] ** -0.5)
    write_model_config(folder, model.config, NoSpecialTokens())
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    save_tensors(state, folder / "model.safetensors")
    return model


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_computes_the_same_logits(tmp_path: Path, k: int, tied: bool) -> None:
    ours = make(tmp_path, num_experts_per_tok=k, num_experts=6, tie_word_embeddings=tied)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == "Qwen3MoeForCausalLM"
    tokens = torch.randint(64, (2, 20))
    with torch.no_grad():
        expected, got = theirs(tokens).logits, ours(tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_folders_of_transformers_are_read(tmp_path: Path) -> None:
    theirs = transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=80,
            moe_intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_experts=6,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            max_position_embeddings=32,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = Transformer(read_model_config(tmp_path)).eval()
    load_weights(ours, tmp_path)
    tokens = torch.randint(64, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_experts_per_tok": 2, "router_aux_loss": "sequence", "router_aux_loss_coef": 0.1},
        {"router_aux_loss": "none", "router_z_loss_coef": 0.001},
        {"num_shared_experts": 2, "num_experts_per_tok": 2},
        {"qk_norm": False, "tie_word_embeddings": False},
        {"router_aux_loss": "bias", "router_bias_rate": 0.002},
    ],
)
def test_config_and_weights_survive_the_folder(tmp_path: Path, changes: dict[str, Any]) -> None:
    ours = make(tmp_path, **changes)
    if ours.config.router_aux_loss == "bias":
        ours.model.layers[1].mlp.gate.e_score_correction_bias.copy_(torch.tensor([0.1, 0, 0.3, 0]))
        save_tensors(
            {n: t for n, t in ours.state_dict().items() if n != "lm_head.weight"},
            tmp_path / "model.safetensors",
        )
    again = Transformer(read_model_config(tmp_path)).eval()
    load_weights(again, tmp_path)
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for name, value in changes.items():
        assert getattr(again.config, name) == value
    tokens = torch.randint(64, (2, 20))
    assert torch.equal(again(tokens).logits, ours(tokens).logits)


@pytest.mark.parametrize(
    "changes", [{"num_shared_experts": 1}, {"qk_norm": False}, {"router_aux_loss": "bias"}]
)
def test_transformers_refuses_what_it_would_compute_wrong(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    make(tmp_path, **changes)
    with pytest.raises(ValueError, match="jielong_moe"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_missing_expert_is_named(tmp_path: Path) -> None:
    model = make(tmp_path)
    state = model.state_dict()
    state.pop("lm_head.weight")
    state.pop("model.layers.1.mlp.experts.2.up_proj.weight")
    save_tensors(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\.2\.up_proj"):
        load_weights(Transformer(model.config), tmp_path)


@pytest.mark.parametrize(("field", "value"), [("decoder_sparse_step", 2), ("mlp_only_layers", [0])])
def test_dense_layers_in_between_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    make(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=field):
        read_model_config(tmp_path)
