"""Hugging Face folders: opened in shards, published with a card, refused when they are broken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from interop_models import LLAMA, QWEN3_MOE, TINY, random_model, some_tokens
from safetensors.torch import load_file, save_file

from jielong.checkpoint.checkpoint import SavedState, load_model, save_checkpoint
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError, ConfigError
from jielong.interop.huggingface import export_hf
from jielong.tokenization.tokenizer import Tokenizer

UNTIED = dataclasses.replace(LLAMA, tie_word_embeddings=False)
ARCHITECTURES = {
    "LlamaForCausalLM": UNTIED,
    "Qwen3ForCausalLM": TINY,
    "Qwen3MoeForCausalLM": QWEN3_MOE,
}


@pytest.fixture
def sharded(tmp_path: Path, write_folder: Callable[..., Path]) -> Callable[[ModelConfig], Path]:
    """Writes a folder in shards, as transformers does for large models."""

    def write(config: ModelConfig) -> Path:
        source, folder = write_folder(config, "source"), tmp_path / "sharded"
        model = transformers.AutoModelForCausalLM.from_pretrained(source)
        model.save_pretrained(folder, max_shard_size="100KB")
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        assert len(list(folder.glob("model-*.safetensors"))) > 1
        return folder

    return write


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sharded_folder_of_transformers_gives_its_logits(
    name: str, sharded: Callable[[ModelConfig], Path]
) -> None:
    folder = sharded(ARCHITECTURES[name])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == name
    ours, _ = load_model(folder)
    with torch.no_grad():
        expected, logits = theirs(some_tokens()).logits, ours(some_tokens()).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_shard_that_is_missing_or_truncated_is_named(
    sharded: Callable[[ModelConfig], Path],
) -> None:
    folder = sharded(TINY)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{shard.name}: damaged"):
        load_model(folder)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name}: missing"):
        load_model(folder)


@pytest.mark.parametrize("path", ["../evil.safetensors", "/evil.safetensors", "a/b.safetensors"])
def test_index_cannot_point_out_of_its_folder(
    path: str, sharded: Callable[[ModelConfig], Path], tmp_path: Path
) -> None:
    folder = sharded(TINY)
    index = folder / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    name = next(iter(record["weight_map"]))
    record["weight_map"][name] = path
    index.write_text(json.dumps(record))
    save_file({name: torch.zeros(2)}, tmp_path / "evil.safetensors")
    with pytest.raises(CheckpointError, match="is not a valid shard name"):
        load_model(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}']
)
def test_damaged_index_is_named(text: str, sharded: Callable[[ModelConfig], Path]) -> None:
    folder = sharded(TINY)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        load_model(folder)


def test_weight_at_odds_with_the_index_is_named(sharded: Callable[[ModelConfig], Path]) -> None:
    folder = sharded(TINY)
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    save_file(load_file(shard) | {"stranger": torch.zeros(2)}, shard)
    with pytest.raises(CheckpointError, match="stranger is missing, or not in the index"):
        load_model(folder)


def test_quantized_weights_are_refused(write_folder: Callable[..., Path]) -> None:
    folder = write_folder(TINY)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{name} is torch\.int8"):
        load_model(folder)


def test_rotary_frequencies_of_old_llama_folders_are_no_strangers(
    write_folder: Callable[..., Path],
) -> None:
    folder = write_folder(LLAMA)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    save_file(tensors | {name: torch.zeros(8)}, folder / "model.safetensors")
    load_model(folder)


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    values = {
        "progress": {
            "tokens": 123_456,
            "validation": {"loss": 2.3456, "perplexity": 10.44, "bits_per_byte": 1.25},
        },
        "peak_learning_rate": 0.02,
        "config": {
            "data": {"data_path": ["/home/someone/private/poems.jsonl", "sample:shakespeare"]},
            "training": {"optimizer": "muon", "batch_size": 32},
        },
        "torch": "2.13.0",
    }
    optimizer = {"momentum": torch.zeros(4)}
    state = SavedState(500, values)
    return save_checkpoint(
        tmp_path / "run/checkpoints", random_model(TINY), tokenizer, optimizer, state
    )


def test_published_copy_is_small_opens_and_says_what_it_is(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = export_hf(tmp_path / "run", tmp_path / "out", "bfloat16", license="apache-2.0")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    ours, _ = load_model(checkpoint)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.dtype == torch.bfloat16
    with torch.no_grad():
        logits = theirs(some_tokens()).logits.float()
        torch.testing.assert_close(logits, ours(some_tokens()).logits, atol=0.1, rtol=0)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for fact in (
        "license: apache-2.0",
        "poems.jsonl, sample:shakespeare",
        "| held-out loss (nats per token) | 2.346 |",
        "| tokens seen | 123,456 |",
        "| steps | 500 |",
        "| optimizer | muon |",
        f"{ours.num_parameters():,} parameters",
        "AutoModelForCausalLM.from_pretrained",
    ):
        assert fact in card
    assert "private" not in card  # where the data lay is not published


def test_code_in_the_model_card_runs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export_hf(checkpoint, tmp_path / "out", "float32")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["inputs"]["input_ids"][0, 0] == 1  # type: ignore[index]


def test_export_of_a_plain_model_folder_needs_no_training_state(
    write_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = export_hf(write_folder(QWEN3_MOE), tmp_path / "out", "float16")
    assert "## Training" not in (folder / "README.md").read_text()
    transformers.Qwen3MoeForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm": False}, "Llama has no experts"),
        ({"num_shared_experts": 1}, "no shared experts"),
        ({"router_aux_loss": "bias"}, "no balancing bias"),
    ],
)
def test_architecture_without_a_class_is_refused(
    change: dict[str, object], message: str, write_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_folder(dataclasses.replace(QWEN3_MOE, **change))
    with pytest.raises(CheckpointError, match=message):
        export_hf(source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {source.name}


def test_wrong_wishes_are_named_before_anything_is_written(
    write_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_folder(TINY)
    for arguments, message in (
        ({"dtype": "int8"}, "int8"),
        ({"license": "Apache License\nfoo: bar"}, "license"),
        ({"push_to_hub": "no-user"}, "user/name"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_hf(source, tmp_path / "out", **arguments)
    with pytest.raises(CheckpointError, match="not empty"):
        export_hf(source, source)
    assert {path.name for path in tmp_path.iterdir()} == {source.name}


def test_failed_upload_keeps_the_folder_and_says_so(
    write_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="was written, but could not be uploaded"):
        export_hf(write_folder(TINY), tmp_path / "out", push_to_hub="someone/a-model")
    load_model(tmp_path / "out")
