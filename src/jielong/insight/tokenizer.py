"""A text as one tokenizer splits it, or several beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jielong.insight.tokens import read_tokens, texts_of
from jielong.present.blocks import Block, Mark, Page, Strip, Table
from jielong.present.result import Result
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Split:
    """A text in the T tokens of one tokenizer.

    Attributes:
        ids, pieces: (T,): the number of each token, and how it is shown.
        bytes: (T,): UTF-8 bytes of text of each token; a special token has none.
    """

    name: str
    vocabulary: int
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class TokenizerView(Result):
    """A text of `text_bytes` UTF-8 bytes, split by each tokenizer."""

    characters: int
    text_bytes: int
    splits: tuple[Split, ...]

    def page(self, say: Say) -> Page:
        """Return a table of the tokenizers, and the pieces of each."""
        title = say(
            "Text of {characters:,} characters, {bytes:,} bytes",
            characters=self.characters,
            bytes=self.text_bytes,
        )
        columns = (
            *(say("tokenizer"), say("vocabulary"), say("tokens")),
            *(say("bytes a token"), say("characters a token")),
        )
        rows = [
            (
                split.name,
                f"{split.vocabulary:,}",
                f"{len(split.ids):,}",
                f"{self.text_bytes / len(split.ids):.2f}",
                f"{self.characters / len(split.ids):.2f}",
            )
            for split in self.splits
        ]
        return Page(title, [Table(columns, rows), *self._strips(say)])

    def _strips(self, say: Say) -> Iterator[Block]:
        labels = say("piece"), "id", say("bytes")
        for split in self.splits:
            columns = [
                (Mark(piece, group=i % 2), Mark(str(token), muted=True), Mark(str(size) or ""))
                for i, (piece, token, size) in enumerate(
                    zip(split.pieces, split.ids, split.bytes, strict=True)
                )
            ]
            yield Strip(labels, columns, split.name)


def inspect_tokenizer(tokenizers: Mapping[str, Tokenizer] | Tokenizer, text: str) -> TokenizerView:
    """Split a text with one tokenizer or several: `jielong inspect tokenizer`.

    Args:
        tokenizers: a tokenizer, or several by name.
        text: as it would stand in a document; names of special tokens become special tokens.

    Returns:
        Ids and pieces of the text, (T,), for each tokenizer, with bytes of each token.

    Raises:
        DataError: there is no text, or a tokenizer cannot read it.
    """
    if isinstance(tokenizers, Tokenizer):
        tokenizers = {"tokenizer": tokenizers}
    splits = []
    for name, tokenizer in tokenizers.items():
        ids = read_tokens(tokenizer, text)
        sizes = tokenizer.token_bytes()
        splits.append(
            Split(
                name=name,
                vocabulary=tokenizer.vocab_size,
                ids=tuple(ids),
                pieces=texts_of(tokenizer, ids),
                bytes=tuple(int(sizes[i]) for i in ids),
            )
        )
    return TokenizerView(len(text), len(text.encode()), tuple(splits))
