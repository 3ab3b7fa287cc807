"""Text generation: one token per step with a KV cache, streamed as it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from jielong.config.sampling import Sampling
from jielong.errors import ConfigError, DataError
from jielong.generation.fp16_decoder import Fp16Decoder, fp16_decoder
from jielong.generation.sampling import new_generator, sample_next
from jielong.generation.stopping import until
from jielong.generation.threads import FEW_TOKENS, is_small, on_one_thread
from jielong.model.attention import KVCache
from jielong.model.prompt import read
from jielong.model.transformer import Transformer, context_length
from jielong.tokenization.tokenizer import Tokenizer

PRIMED_TOKENS = 32  # prompt tokens given to the text decoder: a space can depend on what precedes
MIN_TOKENS_TO_PACK = 96  # packing the weights takes the time that 80 to 100 steps save
NO_TOKEN = -1  # for a row that has ended, or that is still reading its prompt


class TextGenerator:
    """Generates text with a model and its tokenizer.

    On a CPU it keeps a packed copy of the weights between texts (`Fp16Decoder`). The copy takes
    half as much memory as the model and is repacked when the weights have changed. Several
    iterators may be in use at once.

    Args:
        model: on any device. It may be in training mode, which each step restores.
        tokenizer: the tokenizer the model was trained with.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._decoder: Fp16Decoder | None = None
        self._checksum: int | None = None  # of the weights at the last packing attempt

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_at_eos: bool = True,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Generate the continuation of `prompt`, piece by piece.

        The prompt begins a document (bos first), as in training. When the context is full, the
        model rereads its last half and continues from there. If the prompt is longer than the
        context, only its end is read. On a CPU long texts use half-precision weights, packed when
        the text begins; greedy ones do not, so that they are those of the saved weights.

        Args:
            prompt: may be empty if the tokenizer has a bos token.
            max_new_tokens: the maximum number of tokens to write.
            sampling: how tokens are drawn; default `Sampling()`.
            stop_at_eos: stop at the end of the document; otherwise eos is never drawn.
            stop: texts before the first of which to stop.

        Yields:
            Non-empty text without the prompt, never part of a UTF-8 character. A character that is
            incomplete at the end is replaced by U+FFFD.

        Raises:
            ConfigError: max_new_tokens is negative or not an integer, or a text of `stop` is empty.
            DataError: the prompt is empty and there is no bos, or it contains a lone surrogate or
                a token that the model does not have.
            CheckpointError: the model's logits are not finite.
        """
        generation = self._generation([prompt], max_new_tokens, sampling, stop_at_eos)
        if max_new_tokens >= MIN_TOKENS_TO_PACK and not generation.sampling.greedy:
            generation.make_decoder = self.fp16_decoder
        pieces = (pieces[0] for pieces in generation if pieces[0])
        return until(pieces, stop) if stop else pieces

    def batch(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_at_eos: bool = True,
    ) -> list[str]:
        """Generate the continuations of several prompts as one batch; return them without prompts.

        Arguments and errors are those of `stream`. torch's global random state is not used. While
        rows with short prompts already write, rows with longer prompts read the rest of theirs
        token by token.
        """
        if not prompts:
            return []
        texts = [""] * len(prompts)
        for pieces in self._generation(prompts, max_new_tokens, sampling, stop_at_eos):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        return texts

    def fp16_decoder(self) -> Fp16Decoder | None:
        """Return a packed copy of the current weights, or None if they cannot be packed."""
        checksum = self.model.checksum()
        if checksum != self._checksum:
            self._decoder, self._checksum = fp16_decoder(self.model), checksum
        return self._decoder

    def _generation(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        sampling: Sampling | None,
        stop_at_eos: bool,
    ) -> _Generation:
        return _Generation(
            self.model, self.tokenizer, prompts, max_new_tokens, sampling or Sampling(), stop_at_eos
        )


class _Generation:
    """A batch of texts being written; iteration yields each row's new text after each step."""

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
            raise ConfigError(f"max_new_tokens={max_new_tokens!r} is not an integer")
        if max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens={max_new_tokens} is negative")
        self.model, self.sampling, self.max_new_tokens = model, sampling, max_new_tokens
        self.prompts = [encode_prompt(model, tokenizer, prompt) for prompt in prompts]
        self.eos = tokenizer.eos_id
        self.suppressed = suppressed_tokens(model, tokenizer, stop_at_eos)  # (V,)
        self.streams = [tokenizer.stream(skip_special=True) for _ in prompts]
        for stream, ids in zip(self.streams, self.prompts, strict=True):
            for token in ids[-PRIMED_TOKENS:]:
                stream.push(token)
        self.generator = new_generator(sampling.seed, model.device)
        self.remaining = [max_new_tokens] * len(prompts)  # tokens that each row may still write
        self.small = is_small(model)
        self.make_decoder: Callable[[], Fp16Decoder | None] = lambda: None  # called at most once

    def __iter__(self) -> Iterator[list[str]]:
        for tokens in self._tokens():
            yield [
                stream.push(token) if token != NO_TOKEN else ""
                for stream, token in zip(self.streams, tokens, strict=True)
            ]
        yield [stream.flush() for stream in self.streams]

    def _tokens(self) -> Iterator[list[int]]:
        """Yield each row's token after each step; NO_TOKEN if it has none."""
        context, lengths = context_length(self.model.config), [len(ids) for ids in self.prompts]
        position = min(lengths)  # rows share positions: read the common length at once
        context_ids = torch.tensor([ids[:position][-context:] for ids in self.prompts])
        context_ids = context_ids.to(self.model.device)  # (B, n), tokens the model sees
        cache = KVCache(
            self.model.config,
            len(lengths),
            min(context, max(lengths) + self.max_new_tokens),
            self.model.device,
            self.model.lm_head.weight.dtype,
        )
        decoder, decoder_made = None, False
        while any(self.remaining):
            if cache.length and not decoder_made:  # not before the first token, to show it sooner
                decoder, decoder_made = self.make_decoder(), True
            if cache.length == cache.max_len:  # full: reread the last half
                cache.length, context_ids = 0, context_ids[:, -max(1, context // 2) :]
            drawn = self._step(context_ids, cache, decoder).tolist()
            in_prompt = [position < length for length in lengths]
            written = [NO_TOKEN if p else token for p, token in zip(in_prompt, drawn, strict=True)]
            new = [
                ids[position] if p else token
                for ids, p, token in zip(self.prompts, in_prompt, drawn, strict=True)
            ]
            yield [self._count(row, token) for row, token in enumerate(written)]
            context_ids = torch.cat(
                [context_ids, torch.tensor(new, device=context_ids.device)[:, None]], dim=1
            )
            position += 1

    def _count(self, row: int, token: int) -> int:
        """Return the token, or NO_TOKEN if the row has ended; eos ends it."""
        if token == NO_TOKEN or not self.remaining[row]:
            return NO_TOKEN
        if token == self.eos:
            self.remaining[row] = 0
            return NO_TOKEN
        self.remaining[row] -= 1
        return token

    @torch.inference_mode()
    def _step(self, context_ids: Tensor, cache: KVCache, decoder: Fp16Decoder | None) -> Tensor:
        """Draw the next token (B,) after `context_ids` (B, n); a prefix of them is in the cache."""
        new = context_ids[:, cache.length :]
        with on_one_thread(self.small and new.numel() <= FEW_TOKENS):
            if decoder is not None and new.numel() == 1:
                logits = decoder(int(new), cache)
            else:
                logits = self._logits(new, cache)
            logits = logits.masked_fill(self.suppressed, -math.inf)
            return sample_next(logits, context_ids, self.sampling, self.generator)

    def _logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Return the logits (B, V) after the cached tokens and `tokens` (B, n)."""
        was_training = self.model.training
        if was_training:
            self.model.eval()
        try:
            hidden = read(self.model, tokens, cache)
            return self.model.logits(hidden[:, -1]).float()
        finally:
            if was_training:
                self.model.train()


def encode_prompt(model: Transformer, tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return bos, if the tokenizer has one, and the prompt's tokens."""
    ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids += tokenizer.encode(prompt)
    if not ids:
        raise DataError("the prompt is empty and the tokenizer has no bos token: give some text")
    if max(ids) >= model.config.vocab_size:
        raise DataError(
            f"the prompt contains token {max(ids)}, but the model's vocabulary ends at "
            f"{model.config.vocab_size - 1}: use the tokenizer it was trained with"
        )
    return ids


def suppressed_tokens(model: Transformer, tokenizer: Tokenizer, stop_at_eos: bool) -> Tensor:
    """Return a mask (V,), true for tokens that are never drawn: pad, bos, and unused ids."""
    V = model.config.vocab_size
    suppressed = torch.arange(V) >= tokenizer.vocab_size  # rows that only pad the matrix
    for token in (tokenizer.pad_id, tokenizer.bos_id):
        if token is not None and token != tokenizer.eos_id and token < V:
            suppressed[token] = True
    if tokenizer.eos_id is not None and tokenizer.eos_id < V and not stop_at_eos:
        suppressed[tokenizer.eos_id] = True
    return suppressed.to(model.device)
