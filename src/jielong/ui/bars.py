"""What a model expects next, for bars: its own probabilities, and those that the knobs leave."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jielong.config.sampling import Sampling
from jielong.generation.generate import encode_prompt, suppressed_tokens
from jielong.generation.sampling import next_distribution
from jielong.model.attention import KVCache
from jielong.model.transformer import Transformer, context_length
from jielong.present.visible import spelled
from jielong.serving.logprobs import prompt_logprobs
from jielong.tokenization.tokenizer import Tokenizer

OTHERS = 8  # likeliest tokens kept of each place of a text


class Reader:
    """Reads texts with a model, and keeps the keys and values of the latest.

    So a knob costs no pass through the model, and a step back or forward one token's.

    Args:
        model, tokenizer: what reads.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.context = context_length(model.config)
        self._suppressed = suppressed_tokens(model, tokenizer, stop_at_eos=True)
        dtype = model.lm_head.weight.dtype
        self._cache = KVCache(model.config, 1, self.context, model.device, dtype)
        self._ids: list[int] = []  # in the cache
        self._logits: Tensor | None = None  # after them
        self._lock = threading.Lock()

    def within(self, ids: Sequence[int]) -> list[int]:
        """Return what the model sees: past its context the last half, as in `generate`."""
        whole = len(ids) <= self.context
        return list(ids) if whole else list(ids[-max(1, self.context // 2) :])

    @torch.inference_mode()
    def prompt(self, text: str) -> list[dict[str, Any]]:
        """Return the tokens of a text, each with its surprise and what else was likely.

        Raises:
            DataError: the text has no token, or one that the model does not know.
        """
        ids = encode_prompt(self.model, self.tokenizer, text)
        seen = ids[: self.context]
        with self._lock:
            self._cache.length, self._ids, self._logits = 0, [], None
            tokens = torch.tensor([seen], device=self.model.device)
            hidden = self.model.hidden_states(tokens, cache=self._cache)
            self._ids, self._logits = seen, self.model.logits(hidden[:, -1]).float()
            infos = prompt_logprobs(self.model, hidden, seen, OTHERS)
        found: list[Any] = [(None, ()), *infos]
        found += [(None, ())] * (len(ids) - len(seen))
        return [self.token(token, *info) for token, info in zip(ids, found, strict=True)]

    def token(
        self, token: int, logprob: float | None, others: Sequence[tuple[int, float]]
    ) -> dict[str, Any]:
        """Describe a token of a text; `logprob` and those of `others` are natural logarithms."""
        bits = None if logprob is None else -logprob / math.log(2)
        likely = [self._named(other) | {"p": math.exp(value)} for other, value in others]
        return self._named(token) | {
            "bytes": self._bytes(token),
            "bits": bits,
            "others": likely,
            "end": token == self.tokenizer.eos_id,
        }

    def _bytes(self, token: int) -> str:
        special = token in self.tokenizer.special_tokens
        return "" if special else self.tokenizer.piece(token).hex()

    def _named(self, token: int) -> dict[str, Any]:
        return {"id": token, "text": spelled(self.tokenizer.piece(token))}

    def bars(
        self, ids: Sequence[int], sampling: Sampling, count: int, also: int | None = None
    ) -> dict[str, Any]:
        """Return the likeliest next tokens.

        Args:
            ids: the text, not empty.
            sampling: the knobs.
            count: how many tokens to return.
            also: a token to return besides, where it is not among them.

        Returns:
            `bars`: each with `p`, the model's own probability, and `q`, that of being drawn;
            `rest`: the share of all others in both; `drawn_from`: how many tokens can be drawn.

        Raises:
            CheckpointError: the model's logits are not finite.
        """
        with torch.inference_mode():
            seen = self.within(ids)
            logits = self._logits_after(seen)
            own = logits.softmax(-1)[0]
            allowed = logits.masked_fill(self._suppressed, -math.inf)
            previous = torch.tensor([seen], device=logits.device)
            drawn = next_distribution(allowed, previous, sampling)[0]
            best = torch.maximum(own, drawn).topk(min(count, own.numel())).indices
            best = best[own[best].argsort(descending=True, stable=True)]
            if also is not None and not bool((best == also).any()):
                best = torch.cat([best, best.new_tensor([also])])
            ps, qs = own[best].tolist(), drawn[best].tolist()
        eos = self.tokenizer.eos_id
        return {
            "bars": [
                self._named(token)
                | {"p": p, "q": q, "bytes": self._bytes(token), "end": token == eos}
                for token, p, q in zip(best.tolist(), ps, qs, strict=True)
            ],
            "rest": {"p": max(0.0, 1 - sum(ps)), "q": max(0.0, 1 - sum(qs))},
            "drawn_from": int((drawn > 0).sum()),
        }

    def _logits_after(self, seen: list[int]) -> Tensor:
        with self._lock:
            if self._logits is not None and self._ids == seen:
                return self._logits
            shared = 0
            most = min(len(self._ids), len(seen) - 1)
            while shared < most and self._ids[shared] == seen[shared]:
                shared += 1
            self._ids, self._logits, self._cache.length = seen[:shared], None, shared
            new = torch.tensor([seen[shared:]], device=self.model.device)
            hidden = self.model.hidden_states(new, cache=self._cache)
            logits = self.model.logits(hidden[:, -1]).float()
            self._ids, self._logits = seen, logits
            return logits
