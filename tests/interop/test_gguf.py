"""GGUF files, read back by transformers' loader and gguf's own reader."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import tokenizers
import torch
import transformers
from interop_models import HARD_STRINGS, LLAMA, QWEN3_MOE, TINY, random_model, some_tokens
from tokenizers import decoders, models, pre_tokenizers, trainers

from jielong.errors import CheckpointError, ConfigError
from jielong.interop.gguf import export_gguf
from jielong.interop.gguf_tokenizer import (
    BYTE,
    CONTROL,
    PATTERNS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from jielong.tokenization.tokenizer import Tokenizer
from tokenizer_kinds import TEXTS as KIND_TEXTS
from tokenizer_kinds import sentencepiece_bpe

ARCHITECTURES = {
    "llama": LLAMA,
    "llama, untied, one kv head": dataclasses.replace(
        LLAMA, tie_word_embeddings=False, num_key_value_heads=1
    ),
    "qwen3": TINY,
    "qwen3, wide heads": dataclasses.replace(TINY, head_dim=32),
    "qwen3moe": QWEN3_MOE,
    "qwen3moe, top 1": dataclasses.replace(QWEN3_MOE, num_experts_per_tok=1, norm_topk_prob=True),
}


def read_back(path: Path, config: Any) -> Any:
    """The model as transformers reads it; its GGUF loader leaves these two to the caller."""
    sizes = {"head_dim": config.head_size}
    if config.use_moe:
        sizes["moe_intermediate_size"] = config.expert_size
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, **sizes
    ).eval()


def rounded(weight: torch.Tensor, dtype: str) -> torch.Tensor:
    """What a matrix becomes in a format, by the format's definition."""
    if dtype == "f32":
        return weight
    if dtype == "f16":
        return weight.half().float()
    blocks = weight.reshape(-1, 32)  # each with a half-precision scale and 32 signed bytes
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    return ((blocks / scale).round() * scale.half().float()).reshape(weight.shape)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_reading_back_gives_the_logits_of_the_rounded_weights(
    name: str, dtype: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = ARCHITECTURES[name]
    model = random_model(config)
    path = export_gguf(model, tokenizer, tmp_path, dtype)
    assert path == tmp_path / f"model-{dtype}.gguf"
    with torch.no_grad():
        for key, weight in model.state_dict().items():
            if weight.ndim == 2 and not key.endswith("mlp.gate.weight"):
                weight.copy_(rounded(weight, dtype))
        expected = model(some_tokens()).logits
        logits = read_back(path, config)(some_tokens()).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_settings_are_those_of_the_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = export_gguf(random_model(QWEN3_MOE), tokenizer, tmp_path, "q8_0", name="poems")
    reader = gguf.GGUFReader(path)
    values = {key: field.contents() for key, field in reader.fields.items()}
    expected = {
        "general.architecture": "qwen3moe",
        "general.name": "poems",
        "general.file_type": 7,
        "qwen3moe.context_length": 64,
        "qwen3moe.block_count": 2,
        "qwen3moe.embedding_length": 64,
        "qwen3moe.feed_forward_length": 96,
        "qwen3moe.expert_feed_forward_length": 64,
        "qwen3moe.expert_count": 4,
        "qwen3moe.expert_used_count": 2,
        "qwen3moe.attention.head_count": 4,
        "qwen3moe.attention.head_count_kv": 2,
        "qwen3moe.attention.key_length": 16,
        "qwen3moe.attention.value_length": 16,
        "qwen3moe.rope.freq_base": 1e6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert {key: values.get(key) for key in expected} == expected
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.ffn_up_exps.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_gate_inp.weight"] == "F32"  # a rounded router chooses other experts
    assert kinds["blk.0.attn_q_norm.weight"] == "F32"


def byte_level(pre: str) -> Tokenizer:
    """A tokenizer that splits text as GPT-2, Qwen2 or Llama 3 does, with added tokens."""
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    if pre == "gpt-2":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        pattern = next(key for key, name in PATTERNS.items() if name == pre)
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, spell])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(HARD_STRINGS * 3, trainer)
    backend.add_tokens([tokenizers.AddedToken("<think>", normalized=False)])
    return Tokenizer(backend, {}, {"pad": 0, "bos": 1, "eos": 2})


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe"])
def test_reading_back_gives_the_tokens(pre: str, tmp_path: Path) -> None:
    tokenizer = byte_level(pre)
    assert tokenizer.vocab_size > 300  # merges were learned
    config = dataclasses.replace(TINY, vocab_size=tokenizer.vocab_size + 5)
    path = export_gguf(random_model(config), tokenizer, tmp_path, "f16")
    reader = gguf.GGUFReader(path)
    assert reader.fields["tokenizer.ggml.pre"].contents() == pre
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    think = tokenizer.encode("<think>")[0]
    assert types[:3] == [CONTROL] * 3
    assert types[think] == USER_DEFINED
    assert types[-5:] == [UNUSED] * 5
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in HARD_STRINGS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == tokenizer.encode(text), text
        assert tokenizer.decode(ids) == text
    assert theirs.encode("text")[0] == 1  # bos is added
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)


def sentencepiece(complete: bool = True, converted: bool = False) -> Tokenizer:
    """As Llama 2's: every way to make a token is a merge, ranked by the token.

    Args:
        converted: in the form that transformers gives a tokenizer.model.
    """
    backend = sentencepiece_bpe(split=False)
    parts = json.loads(backend.to_str())
    vocab = parts["model"]["vocab"]
    if complete:
        made = [token for token in vocab if len(token) > 1 and not token.startswith("<")]
        ways = [(t[:i], t[i:]) for t in made for i in range(1, len(t))]
        parts["model"]["merges"] = [
            list(way) for way in ways if way[0] in vocab and way[1] in vocab
        ]
    if converted:
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        doubled = {"type": "Replace", "pattern": {"Regex": r"\A▁"}, "content": "▁▁"}
        parts["normalizer"] = {"type": "Sequence", "normalizers": [spaces, doubled]}
        always = {"replacement": "▁", "prepend_scheme": "always", "split": False}
        steps = [{"type": "Metaspace"} | always]
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    backend = tokenizers.Tokenizer.from_str(json.dumps(parts))
    return Tokenizer(backend, {}, {"pad": None, "bos": 1, "eos": 2})


def tokens_by_llama_cpp(reader: gguf.GGUFReader, text: str) -> list[int]:
    """llama.cpp's `llm_tokenizer_spm` written out: the best pair first, the leftmost of equals."""
    names = reader.fields["tokenizer.ggml.tokens"].contents()
    scores = reader.fields["tokenizer.ggml.scores"].contents()
    ids = {name: i for i, name in enumerate(names)}
    symbols = list(("▁" + text.replace(" ", "▁")) if text else "")
    while True:
        pairs = [
            (-scores[ids[a + b]], place)
            for place, (a, b) in enumerate(itertools.pairwise(symbols))
            if a + b in ids
        ]
        if not pairs:
            break
        place = min(pairs)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    found: list[int] = []
    for symbol in symbols:
        bytes_ = [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
        found += [ids[symbol]] if symbol in ids else bytes_
    return found


@pytest.mark.parametrize("converted", [False, True])
def test_sentencepiece_tokenizers_give_their_tokens_by_the_rule_of_llama_cpp(
    tmp_path: Path, converted: bool
) -> None:
    tokenizer = sentencepiece(converted=converted)
    config = dataclasses.replace(TINY, vocab_size=tokenizer.vocab_size + 5)
    reader = gguf.GGUFReader(export_gguf(random_model(config), tokenizer, tmp_path, "f16"))
    assert reader.fields["tokenizer.ggml.model"].contents() == "llama"
    assert reader.fields["tokenizer.ggml.add_space_prefix"].contents() is True
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    assert types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    for text in [*HARD_STRINGS, *KIND_TEXTS]:
        assert tokens_by_llama_cpp(reader, text) == tokenizer.encode(text), text
    few = {len(tokenizer.encode(text)) < len(text) / 1.5 for text in KIND_TEXTS}
    assert few == {True}  # merges were learned


def test_sentencepiece_tokenizer_that_lacks_a_merge_is_refused(tmp_path: Path) -> None:
    told = r"never merges .*convert its tokenizer\.model, alone in a folder"
    with pytest.raises(CheckpointError, match=told):
        export_gguf(random_model(TINY), sentencepiece(complete=False), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_chat_template_goes_along(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    template = "{{ bos_token }}{{ messages[0]['content'] }}"
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text(template)
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    path = export_gguf(random_model(TINY), loaded, tmp_path, "f16")
    assert gguf.GGUFReader(path).fields["tokenizer.chat_template"].contents() == template


def _unigram() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(models.Unigram([("<s>", 0.0), ("a", -1.0)], unk_id=0))


def _prefix_space() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE({"<s>": 0, "a": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return backend


def _digits() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE({"<s>": 0, "a": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return backend


def _lowercase() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE({"<s>": 0, "a": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.normalizer = tokenizers.normalizers.Lowercase()
    return backend


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_unigram, "only byte-level BPE"),
        (_prefix_space, "only byte-level BPE"),
        (_digits, "its pre-tokenizer is not one of"),
        (_lowercase, "normalises text"),
    ],
)
def test_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(
    make: Callable[[], tokenizers.Tokenizer], message: str, tmp_path: Path
) -> None:
    tokenizer = Tokenizer(make(), {}, {"bos": 0, "eos": 0, "pad": None})
    with pytest.raises(CheckpointError, match=message):
        export_gguf(random_model(TINY), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm": False}, "Llama has no experts"),
        ({"num_shared_experts": 1}, "no shared experts"),
        ({"router_aux_loss": "bias"}, "no balancing bias"),
        ({"num_experts_per_tok": 1}, "always normalises"),
    ],
)
def test_architecture_that_llama_cpp_has_not_is_refused(
    change: dict[str, Any], message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = random_model(dataclasses.replace(QWEN3_MOE, **change))
    with pytest.raises(CheckpointError, match=message):
        export_gguf(model, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_dtype_and_weights_beyond_half_precision_are_named(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = random_model(TINY)
    with pytest.raises(ConfigError, match="q4_k"):
        export_gguf(model, tokenizer, tmp_path, "q4_k")
    with torch.no_grad():
        model.model.embed_tokens.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"token_embd\.weight does not fit"):
        export_gguf(model, tokenizer, tmp_path, "f16")
    assert not list(tmp_path.iterdir())
