"""How the tokens of a vocabulary are made of each other."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np


def merged_from(tokenizer_json: str, pieces: Mapping[int, bytes], vocab_size: int) -> np.ndarray:
    """Return the two tokens that each token was merged from.

    A token that would come apart within a character counts as one that was not merged: its bytes
    mean nothing by themselves.

    Args:
        tokenizer_json: of a `tokenizers.Tokenizer`. Only byte pair encoding (Sennrich et al. 2016)
            merges; of other kinds no token has parts.
        pieces: the bytes of text that each token stands for.
        vocab_size: tokens in the vocabulary.

    Returns:
        (vocab_size, 2) int64; -1 for tokens that were not merged from others.
    """
    parts = np.full((vocab_size, 2), -1, np.int64)
    model = json.loads(tokenizer_json)["model"]
    ids = model.get("vocab") if model["type"] == "BPE" else {}
    for merge in model.get("merges") or []:
        # files of before 2024 write a merge as one string
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        merged = ids.get(left + right)
        if merged is None or parts[merged, 0] >= 0:  # the first merge is the one that is used
            continue
        if all(_is_text(pieces[ids[part]]) for part in (left, right)):
            parts[merged] = ids[left], ids[right]
    return parts


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
