"""Converting a tokenizer to GGUF, or explaining why llama.cpp would tokenize differently."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.errors import CheckpointError
from jielong.tokenization.tokenizer import Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's token types
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
PATTERNS = {  # regex of the Split step → llama.cpp's name of that pre-tokenizer
    _HEAD + r"\p{N}" + _TAIL: "qwen2",
    _HEAD + r"\p{N}{1,3}" + _TAIL: "llama-bpe",
}


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE in GGUF's form: one token and one type per id of the model."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    bos_id: int | None
    eos_id: int
    pad_id: int | None
    chat_template: str | None


def read_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """Return the vocabulary for a model; ids beyond the tokenizer's are marked unused.

    Raises:
        CheckpointError: llama.cpp does not support the tokenizer; the message says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        record = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
        config = json.loads((Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
        jinja = Path(folder) / "chat_template.jinja"
        template = jinja.read_text(encoding="utf-8") if jinja.exists() else None
    template = template or config.get("chat_template")
    if tokenizer.eos_id is None:
        raise _refused("it has no eos token, and llama.cpp would use another token instead")
    model = record["model"]
    pre = _pre_tokenizer(record)
    _check_model(model, pre)
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, NORMAL
    for added in record["added_tokens"]:
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise _refused(f"token {added['content']!r} absorbs adjacent spaces")
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return Vocabulary(
        pre,
        tokens,
        types,
        merges,
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
        template if isinstance(template, str) else None,
    )


def _pre_tokenizer(record: dict[str, Any]) -> str:
    """Return llama.cpp's name of the pre-tokenizer."""
    steps = _steps(record["pre_tokenizer"], "pretokenizers")
    bytes_step = steps[-1] if steps else {}
    if bytes_step.get("type") != "ByteLevel" or bytes_step.get("add_prefix_space"):
        raise _refused("only byte-level BPE without a prefix space is supported")
    if bytes_step.get("use_regex", True):
        pre = "gpt-2" if len(steps) == 1 else None
    else:
        splits = [s for s in steps[:-1] if s["type"] == "Split" and s["behavior"] == "Isolated"]
        plain = len(splits) == len(steps) - 1 == 1
        pre = PATTERNS.get(splits[0]["pattern"].get("Regex", "")) if plain else None
    if pre is None:
        raise _refused("its pre-tokenizer is not one of GPT-2's, Qwen2's, Llama 3's")
    normalizers = [step["type"] for step in _steps(record["normalizer"], "normalizers")]
    if normalizers not in ([], ["NFC"] if pre == "qwen2" else []):
        raise _refused(f"it normalises text before splitting ({', '.join(normalizers)})")
    return pre


def _check_model(model: dict[str, Any], pre: str) -> None:
    if model["type"] != "BPE":
        raise _refused(f"its model is {model['type']}, not BPE")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout"):
        if model.get(name):
            raise _refused(f"{name} = {model[name]!r} is not supported")
    if bool(model.get("ignore_merges")) != (pre == "llama-bpe"):
        raise _refused(f"ignore_merges = {model.get('ignore_merges')} does not match {pre}")


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _refused(reason: str) -> CheckpointError:
    return CheckpointError(f"llama.cpp cannot use this tokenizer: {reason}")
