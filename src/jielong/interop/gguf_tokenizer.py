"""Converting a tokenizer to GGUF, or explaining why llama.cpp would tokenize differently."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.errors import CheckpointError
from jielong.tokenization.tokenizer import Tokenizer

# llama.cpp's token types
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
# what to do for a run whose model shall become GGUF
OWN = "let jielong make one (no --tokenizer)"
CONVERTED = (
    f"convert its tokenizer.model, alone in a folder, with transformers' AutoTokenizer, or {OWN}"
)
PATTERNS = {  # regex of the Split step → llama.cpp's name of that pre-tokenizer
    _HEAD + r"\p{N}" + _TAIL: "qwen2",
    _HEAD + r"\p{N}{1,3}" + _TAIL: "llama-bpe",
}


@dataclass(frozen=True)
class Vocabulary:
    """A BPE in GGUF's form: one token and one type per id of the model.

    Attributes:
        model: "gpt2" (byte-level, with `pre` and `merges`) or "llama" (SentencePiece's spelling and
            byte fallback, with `scores`).
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
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
        raise _refused(
            "it has no eos token, and llama.cpp would use another token instead",
            "name one with --eos-token",
        )
    model = record["model"]
    is_sentencepiece = bool(model.get("byte_fallback"))
    if is_sentencepiece:
        pre, merges, scores = "default", [], sentencepiece_scores(record, vocab_size)
    else:
        pre, scores = _pre_tokenizer(record), []
        _check_model(model, pre)
        merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for token, i in model["vocab"].items():
        byte = is_sentencepiece and re.fullmatch(r"<0x[0-9A-F]{2}>", token)
        tokens[i], types[i] = token, BYTE if byte else NORMAL
    for added in record["added_tokens"]:
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise _refused(f"token {added['content']!r} absorbs adjacent spaces")
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if is_sentencepiece and model["unk_token"] in model["vocab"]:
        types[model["vocab"][model["unk_token"]]] = UNKNOWN
    return Vocabulary(
        "llama" if is_sentencepiece else "gpt2",
        pre,
        tokens,
        types,
        merges,
        scores,
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


def sentencepiece_scores(record: dict[str, Any], vocab_size: int) -> list[float]:
    """Return a score per id by which llama.cpp merges as the tokenizer's ranked merges do.

    llama.cpp merges any two neighbours that together are a token, the best score first. That is
    the same if the tokenizer has a merge for each such pair, and ranks merges by what they make.
    (Of two overlapping pairs that make the same token, as in a run of one letter, llama.cpp takes
    the left one, like SentencePiece itself; Hugging Face's copies of such tokenizers may not.)

    Raises:
        CheckpointError: llama.cpp would merge otherwise, or treat spaces otherwise.
    """
    model = record["model"]
    vocab = model["vocab"]
    space: list[dict[str, Any]] = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    always = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    doubled = {"type": "Replace", "pattern": {"Regex": r"\A▁"}, "content": "▁▁"}
    normalizer = _steps(record["normalizer"], "normalizers")
    splitting = _steps(record["pre_tokenizer"], "pretokenizers")
    # the last one as transformers converts a tokenizer.model: Metaspace adds none to a ▁
    converted = [space[1], doubled], [always]
    if (normalizer, splitting) not in ((space, []), ([], [always]), converted):
        raise _refused(
            "with byte fallback, it must put ▁ before every text and in place of spaces", CONVERTED
        )
    if model["type"] != "BPE" or not all(f"<0x{byte:02X}>" in vocab for byte in range(256)):
        raise _refused("with byte fallback, it must be a BPE with a token for each byte")
    pairs = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    known = set(pairs)
    special = {added["content"] for added in record["added_tokens"]}
    for token in vocab.keys() - special:
        for left, right in ((token[:i], token[i:]) for i in range(1, len(token))):
            if left in vocab and right in vocab and (left, right) not in known:
                raise _refused(
                    f"it never merges {left!r} and {right!r}, but llama.cpp would", CONVERTED
                )
    made = ["".join(pair) for pair in pairs]
    order = {token: rank for rank, token in enumerate(dict.fromkeys(made))}
    if [order[token] for token in made] != sorted(order[token] for token in made):
        raise _refused("its merges are not ranked by the token that they make", CONVERTED)
    scores = [0.0] * vocab_size
    for token, rank in order.items():
        scores[vocab[token]] = -1.0 - rank
    return scores


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _refused(reason: str, fix: str = OWN) -> CheckpointError:
    return CheckpointError(
        f"llama.cpp cannot use this tokenizer: {reason}. For a model that shall become GGUF, {fix} "
        "before training"
    )
