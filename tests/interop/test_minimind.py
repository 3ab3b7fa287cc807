"""MiniMind's checkpoints, both ways; the fixtures' logits come from MiniMind's own code."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interop_models import FIXTURES, LLAMA, TINY, random_model, some_tokens
from safetensors.torch import load_file, save_file

from jielong.checkpoint.checkpoint import load_model
from jielong.errors import CheckpointError, ConfigError, DataError, JielongError
from jielong.interop.minimind import export_minimind, import_minimind
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

NAMES = ("minimind2", "minimind2_moe", "minimind3", "minimind3_moe")


def weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(FIXTURES / f"{name}.pth", weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_imported_model_gives_the_logits_of_minimind(
    name: str, tokenizer_dir: Path, tmp_path: Path
) -> None:
    import_minimind(
        FIXTURES / f"{name}.pth", tokenizer_dir, tmp_path / "out", FIXTURES / f"{name}.json"
    )
    model, _ = load_model(tmp_path / "out")
    expected = load_file(FIXTURES / f"{name}.expected.safetensors")
    with torch.no_grad():
        logits = model(expected["input_ids"]).logits
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_exported_checkpoint_equals_the_imported_one(
    name: str, tokenizer_dir: Path, tmp_path: Path
) -> None:
    settings = FIXTURES / f"{name}.json"
    import_minimind(FIXTURES / f"{name}.pth", tokenizer_dir, tmp_path / "in", settings)
    path = export_minimind(*load_model(tmp_path / "in"), tmp_path / "out")
    assert path.name == ("pretrain_64_moe.pth" if "moe" in name else "pretrain_64.pth")
    state = torch.load(path, weights_only=True)
    assert state.keys() == set(json.loads(settings.read_text())["keys"])
    for key, value in weights(name).items():
        assert state[key].dtype == torch.float16
        torch.testing.assert_close(state[key], value, atol=0, rtol=0)
    import_minimind(path, tmp_path / "out", tmp_path / "again", path.with_suffix(".json"))


@pytest.mark.parametrize("name", ["minimind3", "minimind3_moe"])
def test_minimind3_needs_no_config_and_says_what_it_assumed(
    name: str, tokenizer_dir: Path, tmp_path: Path
) -> None:
    reading = import_minimind(FIXTURES / f"{name}.pth", tokenizer_dir, tmp_path / "out")
    assert reading.family == "MiniMind-3"
    assert (reading.config.num_attention_heads, reading.config.head_size) == (4, 16)
    assert reading.assumed["rope_theta"] == 1e6
    assert reading.assumed["max_position_embeddings"] == 32768
    assert ("num_experts_per_tok" in reading.assumed) == ("moe" in name)


def test_minimind2_of_unusual_heads_asks_for_its_config(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="num_attention_heads by --config"):
        import_minimind(FIXTURES / "minimind2.pth", tokenizer_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_minimind2_of_the_usual_heads_needs_no_config(
    tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    usual = dataclasses.replace(LLAMA, num_attention_heads=8, num_key_value_heads=2)
    path = export_minimind(random_model(usual), tokenizer, tmp_path / "exported")
    reading = import_minimind(path, tokenizer_dir, tmp_path / "out")
    assert (reading.config.num_attention_heads, reading.config.num_key_value_heads) == (8, 2)
    assert reading.assumed["num_attention_heads"] == 8
    assert reading.assumed["rms_norm_eps"] == 1e-5


def test_weights_of_a_resume_file_are_found(tokenizer_dir: Path, tmp_path: Path) -> None:
    resume = tmp_path / "pretrain_64_resume.pth"
    wrapped = {f"_orig_mod.{key}": value for key, value in weights("minimind3").items()}
    torch.save({"model": wrapped, "optimizer": {"state": {}}, "epoch": 1, "step": 7}, resume)
    import_minimind(resume, tokenizer_dir, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_untied_head_is_imported_untied(tokenizer_dir: Path, tmp_path: Path) -> None:
    state = weights("minimind3")
    state["lm_head.weight"] = state["lm_head.weight"] * 2
    torch.save(state, tmp_path / "untied.pth")
    reading = import_minimind(tmp_path / "untied.pth", tokenizer_dir, tmp_path / "out")
    assert not reading.config.tie_word_embeddings


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


def refused(
    pth: Path, tokenizer_dir: Path, tmp_path: Path, config: Path | None = None
) -> JielongError:
    """The error of an import, which has written nothing."""
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(JielongError) as caught:
        import_minimind(pth, tokenizer_dir, tmp_path / "out", config)
    assert {path.name for path in tmp_path.iterdir()} == before
    return caught.value


def test_pickle_that_would_run_code_is_refused_unrun(tokenizer_dir: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    state = weights("minimind3")
    torch.save(state | {"model.norm.weight": Payload(sentinel)}, tmp_path / "zip.pth")
    torch.save(Payload(sentinel), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(sentinel), protocol=2))
    for name in ("zip", "old", "bare"):
        error = refused(tmp_path / f"{name}.pth", tokenizer_dir, tmp_path)
        assert isinstance(error, CheckpointError)
        assert f"{name}.pth: contains objects other than tensors" in str(error)
        assert not sentinel.exists()


def test_file_that_is_no_checkpoint_is_named(tokenizer_dir: Path, tmp_path: Path) -> None:
    state = weights("minimind3")
    whole = (FIXTURES / "minimind3.pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    (tmp_path / "flipped.pth").write_bytes(flipped)
    (tmp_path / "stub.pth").write_bytes(whole[:40])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    (tmp_path / "folder.pth").mkdir()
    save_file(state | {"lm_head.weight": state["lm_head.weight"].clone()}, tmp_path / "safe.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    torch.save({"tok_embeddings.weight": torch.zeros(4, 4)}, tmp_path / "other.pth")
    torch.save({"x": torch.zeros(2, dtype=torch.int64)}, tmp_path / "integers.pth")
    torch.save({"x": torch.zeros(2, device="meta")}, tmp_path / "shapes.pth")
    for path in [*tmp_path.glob("*.pth"), tmp_path / "missing.pth"]:
        error = refused(path, tokenizer_dir, tmp_path)
        assert isinstance(error, CheckpointError)
        assert path.name in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.layers.1.mlp.up_proj.weight": None}, "model.layers.1.mlp.up_proj.weight is miss"),
        ({"lm_head.weight": None}, "lm_head.weight is missing"),
        ({"model.layers.0.self_attn.bias": torch.zeros(3)}, "self_attn.bias does not belong"),
        ({"model.layers.1.self_attn.k_proj.weight": torch.zeros(16, 64)}, "k_proj.weight has sha"),
        ({"model.embed_tokens.weight": torch.zeros(320)}, "embed_tokens.weight has shape"),
        ({"model.layers.999999999.x": torch.zeros(1)}, "the weights of layer 2 are missing"),
    ],
)
def test_wrong_weight_is_named(
    change: dict[str, torch.Tensor | None], message: str, tokenizer_dir: Path, tmp_path: Path
) -> None:
    state = {k: v for k, v in (weights("minimind3") | change).items() if v is not None}
    torch.save(state, tmp_path / "changed.pth")
    error = refused(tmp_path / "changed.pth", tokenizer_dir, tmp_path)
    assert message in str(error)


def test_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    train_tokenizer(["a text"], 300, 2**10).save(tmp_path / "tokenizer")
    error = refused(FIXTURES / "minimind3.pth", tmp_path / "tokenizer", tmp_path)
    assert "vocabulary of 320 tokens" in str(error)
    with pytest.raises(DataError, match="no such file"):
        import_minimind(FIXTURES / "minimind3.pth", tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gpt2", "vocab_size": 320}, "model_type 'gpt2'"),
        ({"n_embd": 64}, "contains no MiniMind setting"),
        ({"hidden_size": 512}, "hidden_size=512, but the weights say 64"),
        ({"num_attention_heads": 8}, "num_attention_heads=8, but the weights say 4"),
        ({"num_attention_heads": "four"}, "num_attention_heads='four'"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"use_moe": True}, "use_moe=True, but the weights say False"),
        ({"inference_rope_scaling": True, "hidden_size": 64}, "inference_rope_scaling"),
        ({"hidden_act": "gelu", "hidden_size": 64}, "hidden_act"),
        ([1], "no JSON object"),
    ],
)
def test_config_of_another_architecture_is_refused(
    settings: Any, message: str, tokenizer_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    error = refused(FIXTURES / "minimind3.pth", tokenizer_dir, tmp_path, path)
    assert isinstance(error, ConfigError)
    assert message in str(error)
    assert "config.json" in str(error)


def test_import_never_overwrites(tokenizer_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    error = refused(FIXTURES / "minimind3.pth", tokenizer_dir, tmp_path)
    assert "not empty" in str(error)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_word_embeddings": False}, "tied"),
        ({"qk_norm": False, "head_dim": 32}, "hidden_size / heads"),
        ({"use_moe": True, "num_shared_experts": 1}, "no shared experts"),
        ({"use_moe": True, "router_aux_loss": "bias"}, "balancing bias"),
    ],
)
def test_architecture_without_a_place_in_minimind_is_refused(
    change: dict[str, Any], message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = random_model(dataclasses.replace(TINY, **change))
    with pytest.raises(CheckpointError, match=message):
        export_minimind(model, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weight_beyond_half_precision_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = random_model(TINY)
    with torch.no_grad():
        model.model.norm.weight[0] = 1e6
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight does not fit"):
        export_minimind(model, tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())


def test_export_stands_beside_other_files_and_never_overwrites(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "full_sft_64.pth").write_text("another")
    model = random_model(TINY)
    path = export_minimind(model, tokenizer, tmp_path)
    first = path.read_bytes()
    with pytest.raises(CheckpointError, match="exists"):
        export_minimind(random_model(TINY, seed=1), tokenizer, tmp_path)
    assert path.read_bytes() == first
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_half_precision_changes_logits_little(
    tokenizer: Tokenizer, write_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model, _ = load_model(write_folder(TINY))
    path = export_minimind(model, tokenizer, tmp_path / "half")
    import_minimind(path, tmp_path / "half", tmp_path / "back", path.with_suffix(".json"))
    again, _ = load_model(tmp_path / "back")
    tokens = some_tokens()
    torch.testing.assert_close(again(tokens).logits, model(tokens).logits, atol=1e-2, rtol=0)
