"""Which experts each token is sent to, layer by layer, in a mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jielong.errors import ConfigError
from jielong.insight.reading import Reading, notes_of, read
from jielong.model.moe import Routing
from jielong.model.transformer import Transformer
from jielong.present.blocks import Block, Heatmaps, Mark, Note, Page, Panel, Strip, Table
from jielong.present.result import Result
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class RoutedLayer:
    """The routing of a layer, from 1.

    Attributes:
        experts: (T, k): the experts of each token, from 0, the one with the largest weight first.
        weights: (T, k): how much each of them counts.
        load: (E,): how often each expert was chosen.
    """

    layer: int
    experts: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    load: tuple[int, ...]


@dataclass(frozen=True)
class ExpertsView(Result):
    """A text through the routers of a mixture of experts."""

    reading: Reading
    layers: tuple[RoutedLayer, ...]

    def page(self, say: Say) -> Page:
        """Return the experts below each token, and the load of each expert."""
        names = [say("layer {n}", n=layer.layer) for layer in self.layers]
        columns = []
        for i, text in enumerate(self.reading.texts):
            marks = [
                Mark(" ".join(map(str, layer.experts[i])), group=layer.experts[i][0])
                for layer in self.layers
            ]
            columns.append((Mark(text), *marks))
        experts = len(self.layers[0].load)
        rows = [
            (name, *(str(n) for n in layer.load))
            for name, layer in zip(names, self.layers, strict=True)
        ]
        most = max(max(layer.load) for layer in self.layers)
        shares = [[n / most for n in layer.load] for layer in self.layers]
        headings = [say("expert {n}", n=n) for n in range(experts)]
        blocks: list[Block] = [
            *notes_of(self.reading, say),
            Note(
                say(
                    "Below each token: the experts that it is sent to, the one that counts most "
                    "first, which gives the colour."
                ),
                "dim",
            ),
            Strip((say("text"), *names), columns, say("Which experts")),
            Heatmaps([Panel("", shares)], say("How often each was chosen"), headings, names),
            Table((say("layer"), *map(str, range(experts))), rows, say("The same as numbers")),
        ]
        idle = [
            f"{name}: {n}"
            for name, layer in zip(names, self.layers, strict=True)
            for n, load in enumerate(layer.load)
            if not load
        ]
        if idle:
            blocks.append(
                Note(say("No token of this text goes to: {experts}", experts=", ".join(idle)))
            )
        return Page(say("Experts of {n} tokens", n=len(self.reading.ids)), blocks)


@torch.inference_mode()
def inspect_experts(model: Transformer, tokenizer: Tokenizer, text: str) -> ExpertsView:
    """Return which experts each token of a text is sent to: `jielong inspect experts`.

    Args:
        model, tokenizer: as `load` gives them; the model is a mixture of experts.
        text: read as a document, up to the model's context.

    Returns:
        For each layer experts and weights (T, k) of T tokens, and the load (E,) of E experts.

    Raises:
        ConfigError: the model is no mixture of experts.
        DataError: there is no text, or the tokenizer cannot read it.
    """
    if not model.config.use_moe:
        raise ConfigError(
            "this model has no experts: it is dense. --use-moe true (or --preset moe) trains a "
            "mixture of experts"
        )
    reading = read(model, tokenizer, text)
    routings: list[Routing] = []
    model.model(reading.tokens(model.device), routings=routings)
    layers = [_routed(n, r, model.config.num_experts) for n, r in enumerate(routings, start=1)]
    return ExpertsView(reading, tuple(layers))


def _routed(layer: int, routing: Routing, experts: int) -> RoutedLayer:
    weights, order = routing.weights[0].sort(dim=-1, descending=True)  # (T, k)
    chosen = routing.experts[0].gather(-1, order)
    load = torch.bincount(chosen.flatten(), minlength=experts)
    return RoutedLayer(
        layer=layer,
        experts=tuple(map(tuple, chosen.tolist())),
        weights=tuple(tuple(round(w, 4) for w in row) for row in weights.tolist()),
        load=tuple(load.tolist()),
    )
