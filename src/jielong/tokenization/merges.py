"""How the tokens of a vocabulary are made of each other."""

from __future__ import annotations

import json

import numpy as np


def merged_from(tokenizer_json: str, vocab_size: int) -> np.ndarray:
    """Return the two tokens that each token was merged from.

    Args:
        tokenizer_json: of a `tokenizers.Tokenizer`. Only byte pair encoding (Sennrich et al. 2016)
            merges; of other kinds no token has parts.
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
        if merged is not None and parts[merged, 0] < 0:  # the first merge is the one that is used
            parts[merged] = ids[left], ids[right]
    return parts
