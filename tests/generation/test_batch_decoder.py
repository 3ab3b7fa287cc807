"""A step of several texts of different lengths, against a step of each alone."""

from __future__ import annotations

import pytest
import torch

from jielong.generation.batch_decoder import BatchDecoder, CacheSlot
from jielong.generation.fp16_decoder import fp16_decoder
from jielong.model.attention import KVCache
from tiny import tiny_model

KINDS = {
    "dense": {},
    "qk_norm": {"qk_norm": True},
    "experts": {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2, "qk_norm": True},
}
LENGTHS = [1, 9, 4, 30]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_cache_are_those_of_each_text_alone(kind: str, packed: bool) -> None:
    model = tiny_model(**KINDS[kind])
    decoder = fp16_decoder(model) if packed else None
    if packed and decoder is None:
        pytest.skip("this machine has no products of packed float16 weights")
    whole = KVCache(model.config, len(LENGTHS) + 2, 64)
    pairs = whole.pairs[:, 1:5]  # a part of a larger cache
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(64, (length + 2,), generator=generator) for length in LENGTHS]
    for row, (text, length) in enumerate(zip(texts, LENGTHS, strict=True)):
        with torch.inference_mode():
            model.hidden_states(text[None, :length], cache=CacheSlot(pairs[:, row : row + 1], 0))
    batch = BatchDecoder(model, decoder)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    for step in range(2):
        lengths = torch.tensor(LENGTHS) + step
        tokens = torch.stack([t[n] for t, n in zip(texts, lengths, strict=True)])
        before = pairs.clone()
        logits = batch(tokens, lengths, pairs)
        for row, (token, n) in enumerate(zip(tokens, lengths, strict=True)):
            alone = CacheSlot(before[:, row : row + 1], int(n))
            with torch.inference_mode():
                expected = (
                    model.logits(model.hidden_states(token[None, None], cache=alone))[0]
                    if decoder is None
                    else decoder(int(token), alone)
                )
            torch.testing.assert_close(logits[row, None], expected, **tolerance)
            torch.testing.assert_close(pairs[:, row], before[:, row], **tolerance)
    assert not whole.pairs[:, [0, 5]].any()
