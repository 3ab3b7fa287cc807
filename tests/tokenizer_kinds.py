"""Ten kinds of tokenizer as their makers publish them, small: a backend and its settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 4,
    "It's 12345 tabs\tand naïve café words, won't they? 床前明月光，疑是地上霜。" * 4,
]
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2, LLAMA3 = _HEAD + r"\p{N}" + _TAIL, _HEAD + r"\p{N}{1,3}" + _TAIL
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_bpe(pattern: str | None, special: list[str], **options: Any) -> tokenizers.Tokenizer:
    """A byte-level BPE; `pattern` is the regex of its splitting, None that of GPT-2."""
    backend = tokenizers.Tokenizer(models.BPE())
    splitting = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern:
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        splitting = pre_tokenizers.Sequence([split, splitting])
    backend.pre_tokenizer, backend.decoder = splitting, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    parts = json.loads(backend.to_str())
    parts["model"] |= options
    backend = tokenizers.Tokenizer.from_str(json.dumps(parts))
    backend.add_special_tokens(special)
    return backend


def sentencepiece_bpe(split: bool) -> tokenizers.Tokenizer:
    """A BPE with ▁ for the space and bytes for unknown characters, as Llama 2 has it.

    Args:
        split: split at spaces with Metaspace; otherwise replace them in a normalizer.
    """
    trained = tokenizers.Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(vocab_size=200, max_token_length=12, show_progress=False)
    trained.train_from_iterator(TEXTS, trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *BYTES, *sorted(model["vocab"], key=model["vocab"].get)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in model["merges"]]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if split:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        backend.normalizer = trained.normalizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def gpt2() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    # the class of GPT-2, with the splitting of Llama 3: as Yi, OLMo 2 and others are published
    backend = byte_bpe(LLAMA3, ["<|endoftext|>"])
    end = "<|endoftext|>"
    return backend, {"tokenizer_class": "GPT2Tokenizer", "bos_token": end, "eos_token": end}


def llama2() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    return sentencepiece_bpe(split=False), {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": {"content": "<s>", "lstrip": True, "rstrip": True, "special": True},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_prefix_space": False,
        "legacy": True,
        "added_tokens_decoder": {"1": {"content": "<s>", "lstrip": True, "rstrip": True}},
    }


def llama3() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    backend = byte_bpe(LLAMA3, ["<|begin_of_text|>", "<|end_of_text|>"], ignore_merges=True)
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 330)]
    )
    return backend, {
        "tokenizer_class": "LlamaTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
    }


def qwen() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    # without its NFC: the class would add it
    backend = byte_bpe(QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return backend, {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|nowhere|>"],
        "split_special_tokens": True,
    }


def bert() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)  # cased
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return backend, {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,  # at odds with tokenizer.json
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "clean_up_tokenization_spaces": True,
    }


def t5() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        unk_token="<unk>",
        special_tokens=["<pad>", "</s>", "<unk>"],
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend, {
        "tokenizer_class": "T5Tokenizer",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "extra_ids": 100,
    }


def characters() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    names = ["<unk>", "<s>", "</s>", *sorted(set("".join(TEXTS)))]
    backend = tokenizers.Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    # special tokens that are only in the vocabulary, and one that is nowhere
    return backend, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "[MASK]",
    }


def without_special_tokens() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    return byte_bpe(None, []), {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}


def with_gaps() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    parts = json.loads(byte_bpe(None, []).to_str())
    parts["model"]["vocab"] = {t: i + 7 * (i > 300) for t, i in parts["model"]["vocab"].items()}
    parts["model"]["vocab"]["<end>"] = 999
    parts["added_tokens"] = [
        {"id": 999, "content": "<end>", "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
    ]
    backend = tokenizers.Tokenizer.from_str(json.dumps(parts))
    return backend, {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<end>"}


def byte_fallback() -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    # a BPE under the name of a Unigram: transformers 5 does not load it under this name
    return sentencepiece_bpe(split=True), {
        "tokenizer_class": "T5TokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }


KINDS: dict[str, Callable[[], tuple[tokenizers.Tokenizer, dict[str, Any]]]] = {
    "GPT-2": gpt2,
    "Llama 2": llama2,
    "Llama 3": llama3,
    "Qwen": qwen,
    "BERT": bert,
    "T5": t5,
    "characters": characters,
    "no special tokens": without_special_tokens,
    "gaps in the ids": with_gaps,
    "byte fallback": byte_fallback,
}


def write_kind(name: str, folder: Path) -> Path:
    """Write the tokenizer folder of a kind as its maker would."""
    backend, config = KINDS[name]()
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
