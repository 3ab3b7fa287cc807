"""A model that reads a text given by the user: what each of its views begins with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jielong.errors import DataError
from jielong.insight.tokens import read_tokens, texts_of
from jielong.model.transformer import Transformer, context_length
from jielong.present.blocks import Note
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reading:
    """A text as a model reads it: as a document that begins with it.

    Attributes:
        ids: (T,), bos first if the tokenizer has one.
        texts: of each id, to look at.
        sizes: UTF-8 bytes of text of each id.
        left_out: tokens at the end that do not fit into the model's context.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    sizes: tuple[int, ...]
    left_out: int

    def tokens(self, device: torch.device) -> Tensor:
        """Return the ids as a batch of one row, (1, T)."""
        return torch.tensor([self.ids], device=device)


def read(model: Transformer, tokenizer: Tokenizer, text: str, least: int = 1) -> Reading:
    """Read a text, up to the model's context.

    Args:
        least: tokens, bos included, below which there is nothing to see.

    Raises:
        DataError: there is too little text, or the tokenizer cannot read it.
    """
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = [*begin, *read_tokens(tokenizer, text)]
    context = context_length(model.config)
    left_out = max(0, len(ids) - context)
    ids = ids[:context]
    if len(ids) < least:
        raise DataError(
            f"this text is {len(ids)} token, and it takes {least}, as the tokenizer has no bos to "
            "begin with: give a longer one"
        )
    sizes = tokenizer.token_bytes()
    bytes_of = tuple(int(sizes[i]) for i in ids)
    return Reading(tuple(ids), texts_of(tokenizer, ids), bytes_of, left_out)


def notes_of(reading: Reading, say: Say) -> list[Note]:
    """Say so where not all of the text was read."""
    if not reading.left_out:
        return []
    return [
        Note(
            say(
                "The last {n} tokens are left out: the model's context is full before them.",
                n=reading.left_out,
            ),
            "warning",
        )
    ]
