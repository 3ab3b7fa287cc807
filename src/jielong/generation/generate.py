"""Continue a text: a token a step through the key-value cache, shown as it comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from jielong.config.sampling import Sampling
from jielong.errors import ConfigError, DataError
from jielong.generation.fp16_decoder import Fp16Decoder, fp16_decoder
from jielong.generation.sampling import new_generator, sample_next
from jielong.model.attention import KVCache
from jielong.model.transformer import Transformer, context_length
from jielong.tokenization.tokenizer import Tokenizer

PRIMED_TOKENS = 32  # a decoder may write a word's space by what stands before it
WORTH_PACKING = 96  # new tokens; packing the weights costs what about 80 steps then save
NOTHING = -1  # in place of a token: the row ended, or is still inside its prompt


class TextGenerator:
    """A model and its tokenizer, ready to continue texts.

    It keeps a packed copy of the weights between texts (`Fp16Decoder`, on a CPU), which takes half
    the model's memory again and is made anew where the weights have changed. Several texts may be
    continued at once, each with an iterator of its own.

    Args:
        model: on any device; may be in training mode: each step puts it back.
        tokenizer: the one that the model was trained with.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._decoder: Fp16Decoder | None = None
        self._checksum: int | None = None  # of the weights that were packed, or found unfit

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_at_eos: bool = True,
    ) -> Iterator[str]:
        """The continuation of `prompt`, piece by piece, as the model writes it.

        The prompt stands at the start of a document (bos first), as in training. Where the context
        is full, its last half is read again and the text goes on from there; of a prompt longer
        than the context, its end is read. On a CPU the weights are read in half precision, as they
        are when the text begins.

        Args:
            prompt: may be empty if the tokenizer has a bos token.
            max_new_tokens: most tokens to write.
            sampling: how tokens are drawn; default `Sampling()`.
            stop_at_eos: end with the document; otherwise eos is never drawn.

        Yields:
            Non-empty text without the prompt; never half a UTF-8 character. A character left
            unfinished at the end comes as U+FFFD.

        Raises:
            ConfigError: max_new_tokens is negative or no whole number.
            DataError: the prompt is empty and there is no bos, holds a lone surrogate, or holds a
                token that the model does not have.
            CheckpointError: the model's logits are not finite.
        """
        rows = self._rows([prompt], max_new_tokens, sampling, stop_at_eos)
        if max_new_tokens >= WORTH_PACKING:
            rows.decoder_of = self.fp16_decoder
        return (pieces[0] for pieces in rows if pieces[0])

    def batch(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_at_eos: bool = True,
    ) -> list[str]:
        """The continuations of several prompts, computed as one batch; without the prompts.

        All as in `stream`. torch's global random state is neither read nor changed. A row with a
        longer prompt than another's reads the rest of it token by token beside the other's writing.
        """
        if not prompts:
            return []
        texts = [""] * len(prompts)
        for pieces in self._rows(prompts, max_new_tokens, sampling, stop_at_eos):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        return texts

    def fp16_decoder(self) -> Fp16Decoder | None:
        """The packed copy of the weights as they are now, if there can be one."""
        checksum = self.model.checksum()
        if checksum != self._checksum:
            self._decoder, self._checksum = fp16_decoder(self.model), checksum
        return self._decoder

    def _rows(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        sampling: Sampling | None,
        stop_at_eos: bool,
    ) -> _Rows:
        return _Rows(
            self.model, self.tokenizer, prompts, max_new_tokens, sampling or Sampling(), stop_at_eos
        )


def generate(
    model: Transformer, tokenizer: Tokenizer, prompt: str, *rest: Any, **options: Any
) -> Iterator[str]:
    """One text continued: `TextGenerator(model, tokenizer).stream(prompt, …)`."""
    return TextGenerator(model, tokenizer).stream(prompt, *rest, **options)


class _Rows:
    """Documents that grow together; iterating gives the new text of each row after each step."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        max_new_tokens: int,
        sampling: Sampling,
        stop_at_eos: bool,
    ) -> None:
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
            raise ConfigError(f"max_new_tokens={max_new_tokens!r} is not a whole number")
        if max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens={max_new_tokens} is negative")
        self.model, self.sampling, self.max_new_tokens = model, sampling, max_new_tokens
        self.prompts = [_encode_prompt(model, tokenizer, prompt) for prompt in prompts]
        self.eos = tokenizer.eos_id
        self.barred = _barred_tokens(model, tokenizer, stop_at_eos)  # (V,)
        self.streams = [tokenizer.stream(skip_special=True) for _ in prompts]
        for stream, ids in zip(self.streams, self.prompts, strict=True):
            for token in ids[-PRIMED_TOKENS:]:
                stream.push(token)
        self.generator = new_generator(sampling.seed, model.device)
        self.left = [max_new_tokens] * len(prompts)  # tokens that each row may still write
        self.decoder_of: Callable[[], Fp16Decoder | None] = lambda: None  # asked once, if at all

    def __iter__(self) -> Iterator[list[str]]:
        for tokens in self._tokens():
            yield [
                stream.push(token) if token != NOTHING else ""
                for stream, token in zip(self.streams, tokens, strict=True)
            ]
        yield [stream.flush() for stream in self.streams]

    def _tokens(self) -> Iterator[list[int]]:
        """Each step's token of each row, NOTHING where it has none."""
        context, lengths = context_length(self.model.config), [len(ids) for ids in self.prompts]
        known = min(lengths)  # rows share their positions: read what all have, then go on singly
        held = torch.tensor([ids[:known][-context:] for ids in self.prompts])
        held = held.to(self.model.device)  # (B, n) the tokens in view
        cache = KVCache(
            self.model.config,
            len(lengths),
            min(context, max(lengths) + self.max_new_tokens),
            self.model.device,
            self.model.lm_head.weight.dtype,
        )
        decoder, asked = None, False
        while any(self.left):
            if cache.length and not asked:  # after the first token, which is there sooner
                decoder, asked = self.decoder_of(), True
            if cache.length == cache.max_len:  # full: read the last half again
                cache.length, held = 0, held[:, -max(1, context // 2) :]
            drawn = self._step(held, cache, decoder).tolist()
            inside = [known < length for length in lengths]
            written = [NOTHING if within else t for within, t in zip(inside, drawn, strict=True)]
            new = [
                ids[known] if within else t
                for ids, within, t in zip(self.prompts, inside, drawn, strict=True)
            ]
            yield [self._count(row, token) for row, token in enumerate(written)]
            held = torch.cat([held, torch.tensor(new, device=held.device)[:, None]], dim=1)
            known += 1

    def _count(self, row: int, token: int) -> int:
        """The token, unless the row has ended; eos ends it."""
        if token == NOTHING or not self.left[row]:
            return NOTHING
        if token == self.eos:
            self.left[row] = 0
            return NOTHING
        self.left[row] -= 1
        return token

    @torch.inference_mode()
    def _step(self, held: Tensor, cache: KVCache, decoder: Fp16Decoder | None) -> Tensor:
        """The next token (B,) after `held` (B, n), of which the cache has seen a prefix."""
        new = held[:, cache.length :]
        if decoder is not None and new.numel() == 1:
            logits = decoder(int(new), cache)
        else:
            logits = self._logits(new, cache)
        logits = logits.masked_fill(self.barred, -math.inf)
        return sample_next(logits, held, self.sampling, self.generator)

    def _logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """(B, V) of what follows `tokens` (B, n) and what the cache holds."""
        was_training = self.model.training
        if was_training:
            self.model.eval()
        try:
            hidden = self.model.hidden_states(tokens, cache=cache)
            return self.model.logits(hidden[:, -1]).float()
        finally:
            if was_training:
                self.model.train()


def _encode_prompt(model: Transformer, tokenizer: Tokenizer, prompt: str) -> list[int]:
    """bos (if the tokenizer has one) and the prompt's tokens."""
    ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids += tokenizer.encode(prompt)
    if not ids:
        raise DataError("the prompt is empty and the tokenizer has no bos token: give some text")
    if max(ids) >= model.config.vocab_size:
        raise DataError(
            f"the prompt holds token {max(ids)}, but the model's vocabulary ends at "
            f"{model.config.vocab_size - 1}: use the tokenizer it was trained with"
        )
    return ids


def _barred_tokens(model: Transformer, tokenizer: Tokenizer, stop_at_eos: bool) -> Tensor:
    """(V,) true for what must not stand inside a text: pad, bos, and ids that mean nothing."""
    V = model.config.vocab_size
    barred = torch.arange(V) >= tokenizer.vocab_size  # rows that only round the matrix up
    for token in (tokenizer.pad_id, tokenizer.bos_id):
        if token is not None and token != tokenizer.eos_id and token < V:
            barred[token] = True
    if tokenizer.eos_id is not None and tokenizer.eos_id < V and not stop_at_eos:
        barred[tokenizer.eos_id] = True
    return barred.to(model.device)
