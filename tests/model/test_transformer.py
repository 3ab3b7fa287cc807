"""The decoder against transformers, and against itself where the same sum is asked for twice."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jielong.checkpoint.checkpoint import load_model, load_weights, write_model_folder
from jielong.checkpoint.folder import read_model_config
from jielong.config.load import load_config
from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.batches import Batches
from jielong.errors import CheckpointError
from jielong.model.attention import KVCache
from jielong.model.attention_backends import document_lengths
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer
from tiny import ListStream, random_batch, random_documents, tiny_model

transformers = pytest.importorskip("transformers")

ARCHITECTURES = [
    pytest.param({"qk_norm": qk_norm, "num_key_value_heads": kv, "tie_word_embeddings": tied}, id=i)
    for i, qk_norm, kv, tied in [
        ("llama-gqa-tied", False, 2, True),
        ("llama-mha-untied", False, 4, False),
        ("llama-mqa-untied", False, 1, False),
        ("qwen3-gqa-tied", True, 2, True),
        ("qwen3-mha-untied", True, 4, False),
        ("qwen3-gqa-untied", True, 2, False),
    ]
]


@pytest.fixture
def tokens() -> torch.Tensor:
    # no pad (0): transformers gives its embedding no gradient
    return torch.randint(3, 64, (3, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_logits_equal_those_of_transformers(
    tmp_path: Path, tokenizer: Tokenizer, tokens: torch.Tensor, changes: dict[str, Any]
) -> None:
    # a head size of its own, unusual theta and eps: defaults would not be noticed
    model = tiny_model(**changes, vocab_size=288, head_dim=12, rope_theta=5e4, rms_norm_eps=1e-4)
    write_model_folder(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    kind = "Qwen3ForCausalLM" if changes["qk_norm"] else "LlamaForCausalLM"
    assert type(theirs).__name__ == kind
    with torch.no_grad():
        expected, got = theirs(tokens).logits, model(tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_gradients_equal_those_of_transformers(
    tmp_path: Path, tokenizer: Tokenizer, tokens: torch.Tensor, changes: dict[str, Any]
) -> None:
    model = tiny_model(**changes, vocab_size=288)
    write_model_folder(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    logits = theirs(tokens[:, :-1]).logits
    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").backward()
    loss = model(tokens[:, :-1], tokens[:, 1:]).loss
    loss.backward()
    expected = dict(theirs.named_parameters())
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name].grad, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_a_folder_that_transformers_wrote_loads(
    tmp_path: Path, tokenizer: Tokenizer, tokens: torch.Tensor, changes: dict[str, Any]
) -> None:
    common = {
        "vocab_size": 288,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": changes["num_key_value_heads"],
        "tie_word_embeddings": changes["tie_word_embeddings"],
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    if changes["qk_norm"]:
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=16, **common))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
    theirs.eval().save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours, loaded_tokenizer = load_model(tmp_path)
    assert loaded_tokenizer.fingerprint == tokenizer.fingerprint
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "gpt2"),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("use_sliding_window", True),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}),
        ("num_key_value_heads", 3),
        ("hidden_size", "wide"),
        ("vocab_size", None),
    ],
)
def test_an_architecture_that_we_do_not_have_is_refused_by_field(
    tmp_path: Path, tokenizer: Tokenizer, field: str, value: Any
) -> None:
    write_model_folder(tmp_path, tiny_model(vocab_size=288, qk_norm=False), tokenizer)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError) as error:
        read_model_config(tmp_path)
    assert str(path) in str(error.value)
    named = {"rope_parameters": "rope_type", "vocab_size": "", "hidden_size": ""}
    assert named.get(field, field) in str(error.value)


@pytest.mark.parametrize("how", ["rope_scaling", "config without a field", "not JSON"])
def test_a_damaged_or_old_config_is_refused(tmp_path: Path, tokenizer: Tokenizer, how: str) -> None:
    write_model_folder(tmp_path, tiny_model(vocab_size=288), tokenizer)
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    if how == "rope_scaling":  # where transformers before 5 has it
        del record["rope_parameters"]
        record["rope_scaling"] = {"type": "linear", "factor": 2.0}
    elif how == "config without a field":
        del record["hidden_size"]
    path.write_text(json.dumps(record) if how != "not JSON" else "{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_model_config(tmp_path)


@pytest.mark.parametrize("how", ["missing", "added", "misshapen", "truncated", "absent"])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    tmp_path: Path, tokenizer: Tokenizer, how: str
) -> None:
    from safetensors.torch import load_file, save_file

    write_model_folder(tmp_path, tiny_model(seed=1, vocab_size=288), tokenizer)
    path = tmp_path / "model.safetensors"
    weights, name = load_file(path), "model.layers.1.mlp.up_proj.weight"
    if how == "missing":
        del weights[name]
    if how == "added":
        weights["model.layers.2.mlp.up_proj.weight"] = weights[name].clone()
    if how == "misshapen":
        weights[name] = weights[name].T.contiguous()
    save_file(weights, path, metadata={"format": "pt"})
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    if how == "absent":
        path.unlink()
    model = tiny_model(seed=2, vocab_size=288)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"up_proj|model\.safetensors"):
        load_weights(model, tmp_path)
    for name, p in model.state_dict().items():
        assert torch.equal(p, before[name])


def alone(model: Transformer, piece: list[int]) -> float:
    """Summed loss of a document, or of a piece of one, by itself."""
    ids = torch.tensor(piece)[None]
    logits = model(ids[:, :-1]).logits
    return float(F.cross_entropy(logits[0], ids[0, 1:], reduction="sum"))


@pytest.mark.parametrize("window", [16, 64])
def test_packed_masked_loss_equals_each_document_alone(window: int) -> None:
    """A document that a window's border cuts goes on without its beginning."""
    model = tiny_model()
    documents = random_documents(30, longest=24, seed=3)
    stream = ListStream(documents)
    data = DataConfig(max_seq_len=window)
    batches = Batches(stream, data, TrainingConfig(global_batch_size=4))
    batch = batches.load(np.arange(batches.windows))
    assert batch.document_ids is not None
    with torch.no_grad():
        packed = model(batch.tokens, batch.targets, batch.document_ids).loss
        expected, count = 0.0, 0
        for start, document in zip(stream.documents.tolist(), documents, strict=True):
            stop = start + len(document)
            cuts = [start, *(c for c in range(0, stop - 1, window) if start < c), stop - 1]
            for a, b in itertools.pairwise(cuts):
                expected += alone(model, stream.tokens[a : b + 1].tolist())
                count += b - a
    assert count == batch.target_count == len(stream) - len(documents)
    assert float(packed) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cuts", [[], [300], [3, 200, 201], [511]])
def test_long_documents_one_by_one_equal_one_call_with_a_mask(cuts: list[int]) -> None:
    batch = random_batch(3, 512, ignored=0.1)
    ids = torch.zeros(3, 512, dtype=torch.int32)
    for cut in cuts:
        ids[1, cut:] += 1
    lengths = document_lengths(ids)
    inner = [b - a for a, b in itertools.pairwise([0, *cuts, 512])]
    assert lengths == (512, *inner, 512)
    results = []
    for per_document in (True, False):
        model = tiny_model(max_position_embeddings=512)
        model.model.per_document = per_document
        loss = model(batch.tokens, batch.targets, ids).loss
        assert loss is not None
        loss.backward()
        results.append((float(loss.detach()), {n: p.grad for n, p in model.named_parameters()}))
    (one, ours), (other, masked) = results
    assert one == pytest.approx(other, rel=1e-6)
    for name, grad in masked.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-4, atol=1e-3)


def test_short_documents_share_a_call() -> None:
    assert document_lengths(torch.arange(256).view(2, 128) // 32) is None
    assert document_lengths(torch.arange(256).view(1, 256) // 200) is None
    assert document_lengths(torch.zeros(2, 256, dtype=torch.int32)) == (256, 256)


def test_without_the_mask_a_document_sees_its_neighbours() -> None:
    model = tiny_model()
    stream = ListStream(random_documents(10, longest=16))
    losses = []
    for mask in (True, False):
        data = DataConfig(max_seq_len=32, document_mask=mask)
        batches = Batches(stream, data, TrainingConfig(global_batch_size=4))
        batch = batches.load(np.arange(batches.windows))
        with torch.no_grad():
            losses.append(float(model(batch.tokens, batch.targets, batch.document_ids).loss))
    assert abs(losses[0] - losses[1]) > 1e-2


def test_padded_loss_equals_each_document_alone() -> None:
    model = tiny_model()
    documents = random_documents(9, longest=20, seed=4)
    data = DataConfig(max_seq_len=24, packing="pad")
    batches = Batches(ListStream(documents), data, TrainingConfig(global_batch_size=4))
    batch = batches.load(np.arange(batches.windows))
    with torch.no_grad():
        padded = float(model(batch.tokens, batch.targets, batch.document_ids).loss)
        assert padded == pytest.approx(sum(alone(model, d) for d in documents), rel=1e-5)


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 6], [12], [3, 9]])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_cached_forward_equals_uncached(
    tokens: torch.Tensor, chunks: list[int], qk_norm: bool
) -> None:
    model = tiny_model(qk_norm=qk_norm)
    tokens = tokens[:, :12]
    with torch.no_grad():
        whole = model(tokens).logits
        cache = KVCache(model.config, len(tokens), 12)
        parts = [model(piece, cache=cache).logits for piece in tokens.split(chunks, dim=1)]
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-4)


def test_a_new_model_guesses_uniformly_and_is_drawn_by_the_seed(tokens: torch.Tensor) -> None:
    torch.manual_seed(5)
    model = Transformer(tiny_model().config)
    torch.manual_seed(5)
    again = Transformer(tiny_model().config)
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    with torch.no_grad():
        loss = model(tokens[:, :-1], tokens[:, 1:]).loss / tokens[:, 1:].numel()
    assert float(loss) == pytest.approx(math.log(64), abs=0.05)


def test_all_targets_ignored_gives_zero_and_finite_gradients(tokens: torch.Tensor) -> None:
    model = tiny_model()
    loss = model(tokens, torch.full_like(tokens, IGNORE_INDEX)).loss
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("hidden_size", [24, 25])  # 25: weights with an odd number of elements
def test_the_checksum_changes_with_any_bit_of_any_weight(hidden_size):
    model = tiny_model(hidden_size=hidden_size, vocab_size=31, head_dim=8, intermediate_size=9)
    before = model.checksum()
    assert tiny_model(seed=1, **dataclasses.asdict(model.config)).checksum() != before
    for weight in model.parameters():
        flat = weight.data.view(-1).view(torch.int32)
        for place in (0, len(flat) - 1):
            flat[place] ^= 1
            assert model.checksum() != before
            flat[place] ^= 1
    assert model.checksum() == before


@pytest.mark.parametrize("preset", ["tiny", "small", "moe", "minimind"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "qk_norm": False}])
def test_parameters_are_counted_without_making_them(preset: str, changes: dict[str, bool]) -> None:
    config = load_config(preset, **changes).model
    assert config.parameter_count == Transformer(config).num_parameters()


def test_parameters_of_shared_experts_are_counted() -> None:
    config = load_config("moe", num_shared_experts=1, moe_intermediate_size=96).model
    assert config.parameter_count == Transformer(config).num_parameters()
