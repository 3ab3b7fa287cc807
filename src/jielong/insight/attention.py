"""Where each head looks: its attention weights, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jielong.errors import ConfigError
from jielong.insight.reading import Reading, notes_of, read
from jielong.model.attention import Attention
from jielong.model.transformer import Transformer
from jielong.present.blocks import Block, Heatmaps, Note, Page, Panel, Table
from jielong.present.result import Result
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Head:
    """A head of a layer, both from 1.

    Attributes:
        weights: (T, T): from each token (row) to itself and those before.
        distance: tokens that it looks back, a mean weighted by attention.
        on_itself, on_previous, on_first: shares of attention, means over the tokens for which
            these are different places.
    """

    layer: int
    head: int
    weights: tuple[tuple[float, ...], ...]
    distance: float
    on_itself: float
    on_previous: float
    on_first: float


@dataclass(frozen=True)
class AttentionView(Result):
    """The heads of a model over a text."""

    reading: Reading
    heads: tuple[Head, ...]

    def page(self, say: Say) -> Page:
        """Return a picture and a row of a table for each head."""
        panels = [
            Panel(say("layer {layer} head {head}", layer=h.layer, head=h.head), h.weights)
            for h in self.heads
        ]
        legend = say(
            "A row is a token that looks, a column a token that is looked at; the more a square "
            "stands out, the more attention. A token sees itself and those before it."
        )
        labels = self.reading.texts if len(panels) == 1 else ()
        blocks: list[Block] = [
            *notes_of(self.reading, say),
            Note(" ".join(self.reading.texts)),
            Note(legend, "dim"),
            Heatmaps(panels, say("Heads"), labels, labels, say("give --layer, or --html FILE")),
            self._table(say),
        ]
        return Page(say("Attention over {n} tokens", n=len(self.reading.ids)), blocks)

    def _table(self, say: Say) -> Table:
        columns = (
            *(say("layer"), say("head"), say("looks back, tokens")),
            *(say("on itself"), say("on the previous"), say("on the first")),
        )
        rows = [
            (
                *(str(h.layer), str(h.head), f"{h.distance:.1f}"),
                *(f"{h.on_itself:.0%}", f"{h.on_previous:.0%}", f"{h.on_first:.0%}"),
            )
            for h in self.heads
        ]
        return Table(columns, rows, say("What each head attends to"), left=0)


@torch.inference_mode()
def inspect_attention(
    model: Transformer,
    tokenizer: Tokenizer,
    text: str,
    layer: int | None = None,
    head: int | None = None,
) -> AttentionView:
    """Return the attention weights over a text: `jielong inspect attention`.

    Args:
        model, tokenizer: as `load` gives them.
        text: read as a document, up to the model's context.
        layer, head: keep this layer, this head alone; from 1.

    Returns:
        The heads, and of each the weights (T, T): row t is how much token t takes from each of
        those up to itself, and sums to 1.

    Raises:
        ConfigError: there is no such layer or head.
        DataError: there is no text, or the tokenizer cannot read it.
    """
    config = model.config
    for name, value, most in (
        ("layer", layer, config.num_hidden_layers),
        ("head", head, config.num_attention_heads),
    ):
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{name}={value}: this model has {most}, counted from 1")
    reading = read(model, tokenizer, text, least=2)
    found = []
    for number, weights in enumerate(weights_of(model, reading.tokens(model.device)), start=1):
        if layer in (None, number):
            found += [
                _head(number, i, matrix)
                for i, matrix in enumerate(weights[0].cpu(), start=1)
                if head in (None, i)
            ]
    return AttentionView(reading, tuple(found))


def weights_of(model: Transformer, tokens: Tensor) -> list[Tensor]:
    """Return the attention weights of each layer, (B, H, T, T), from a pass of tokens (B, T)."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(module, Attention)
        kept.append(attention_weights(module, inputs[0], inputs[1]))

    attentions = [m for m in model.modules() if isinstance(m, Attention)]
    handles = [module.register_forward_pre_hook(keep) for module in attentions]
    try:
        model.hidden_states(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def attention_weights(module: Attention, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Compute softmax(q·kᵀ / √D) with a causal mask, (B, H, T, T), of x (B, T, hidden)."""
    q, k, _ = module.project(x, rotary)
    k = k.repeat_interleave(module.heads // module.kv_heads, 1)
    scores = (q @ k.mT).float() * module.head_size**-0.5
    T = x.shape[1]
    later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
    return scores.masked_fill(later, float("-inf")).softmax(-1)


def _head(layer: int, head: int, weights: Tensor) -> Head:
    T = len(weights)
    places = torch.arange(T, dtype=torch.float32)
    back = places[:, None] - places
    rows: Sequence[Sequence[float]] = [[round(w, 4) for w in row] for row in weights.tolist()]
    return Head(
        layer=layer,
        head=head,
        weights=tuple(map(tuple, rows)),
        distance=float((weights * back).sum(-1).mean()),
        on_itself=float(weights.diagonal()[1:].mean()),
        on_previous=float(weights.diagonal(-1).mean()),
        on_first=float(weights[2:, 0].mean()) if T > 2 else float("nan"),
    )
