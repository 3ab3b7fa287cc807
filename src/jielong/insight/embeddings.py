"""The nearest tokens of a token, by the cosine of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jielong.insight.tokens import read_tokens
from jielong.model.transformer import Transformer
from jielong.present.blocks import Bars, Block, Facts, Note, Page
from jielong.present.result import Result
from jielong.present.visible import spelled
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer

MOST_TOKENS = 8  # of a text whose neighbours are shown


@dataclass(frozen=True)
class Neighbour:
    """A token near another one; `cosine` is 1 for the same direction, 0 for unrelated ones."""

    token: int
    text: str
    cosine: float


@dataclass(frozen=True)
class TokenNeighbours:
    """A token, the length of its embedding, and the tokens nearest to it."""

    token: int
    text: str
    norm: float
    nearest: tuple[Neighbour, ...]


@dataclass(frozen=True)
class EmbeddingsView(Result):
    """The neighbours of each token of a text.

    Attributes:
        mean_cosine: of all pairs of tokens: what unrelated ones have.
        width: of an embedding.
        left_out: tokens of the text beyond MOST_TOKENS.
    """

    tokens: tuple[TokenNeighbours, ...]
    vocabulary: int
    width: int
    mean_norm: float
    mean_cosine: float
    left_out: int

    def page(self, say: Say) -> Page:
        """Return a list of neighbours for each token."""
        facts = [
            (say("embeddings"), f"{self.vocabulary:,} × {self.width}"),
            (say("mean length"), f"{self.mean_norm:.3f}"),
            (say("mean cosine of two tokens"), f"{self.mean_cosine:.3f}"),
        ]
        blocks: list[Block] = [Facts(facts)]
        if len(self.tokens) > 1:
            blocks.append(
                Note(say("This text is {n} tokens: each by itself.", n=self._count()), "dim")
            )
        for found in self.tokens:
            rows = [(n.text, max(0.0, n.cosine), f"{n.cosine:.3f}") for n in found.nearest]
            title = say(
                "Nearest to {text} (id {token}, length {norm:.3f})",
                text=found.text,
                token=found.token,
                norm=found.norm,
            )
            blocks.append(Bars(rows, title))
        return Page(say("Embeddings"), blocks)

    def _count(self) -> int:
        return len(self.tokens) + self.left_out


@torch.inference_mode()
def inspect_embeddings(
    model: Transformer, tokenizer: Tokenizer, text: str, nearest: int = 10
) -> EmbeddingsView:
    """Return the tokens whose embeddings are nearest: `jielong inspect embeddings`.

    Args:
        model, tokenizer: as `load` gives them.
        text: a token; of a text of several, the first MOST_TOKENS are taken one by one.
        nearest: how many neighbours to keep.

    Returns:
        For each token of the text its neighbours and their cosines, −1 to 1. The matrix of
        embeddings is (V, H).

    Raises:
        DataError: there is no text, or the tokenizer cannot read it.
    """
    ids = read_tokens(tokenizer, text)
    matrix = model.model.embed_tokens.weight[: tokenizer.vocab_size].float()  # (V, H)
    norms = matrix.norm(dim=-1).clamp_min(1e-12)
    directions = matrix / norms[:, None]
    V = len(matrix)
    # Σ over pairs of cosines is |Σ directions|²; V of them are a token with itself
    mean_cosine = (float(directions.sum(0).square().sum()) - V) / (V * (V - 1))
    found = []
    for token in ids[:MOST_TOKENS]:
        cosines = directions @ directions[token]
        cosines[token] = -2.0  # not its own neighbour
        top = cosines.topk(min(nearest, V - 1))
        near = tuple(
            Neighbour(i, spelled(tokenizer.piece(i)), value)
            for value, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        )
        found.append(
            TokenNeighbours(token, spelled(tokenizer.piece(token)), float(norms[token]), near)
        )
    return EmbeddingsView(
        tokens=tuple(found),
        vocabulary=V,
        width=matrix.shape[1],
        mean_norm=float(norms.mean()),
        mean_cosine=mean_cosine,
        left_out=max(0, len(ids) - MOST_TOKENS),
    )
