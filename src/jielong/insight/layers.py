"""The logit lens: what each layer would predict, if it were the last (nostalgebraist 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jielong.insight.reading import Reading, notes_of, read
from jielong.model.transformer import Transformer
from jielong.present.blocks import Bars, Block, Mark, Note, Page, Strip
from jielong.present.result import Result
from jielong.present.visible import spelled
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class LayerGuess:
    """The token that a layer holds for likeliest at a place; `true` if it is what follows."""

    token: int
    text: str
    probability: float
    true: bool


@dataclass(frozen=True)
class LensLayer:
    """What the residual stream says after a layer; layer 0 is the embedding.

    Attributes:
        bits: of surprise by the true next tokens, a mean.
        agreement: share of the places where the guess is that of the last layer.
    """

    layer: int
    guesses: tuple[LayerGuess, ...]
    bits: float
    agreement: float


@dataclass(frozen=True)
class LayersView(Result):
    """A text through the logit lens."""

    reading: Reading
    layers: tuple[LensLayer, ...]

    def page(self, say: Say) -> Page:
        """Return the guesses layer by layer below the text, and the bits of each layer."""
        names = [
            say("embedding") if layer.layer == 0 else say("layer {n}", n=layer.layer)
            for layer in self.layers
        ]
        rows = [
            (
                name,
                layer.bits,
                say(
                    "{bits:.2f} bits, {share:.0%} as the last",
                    bits=layer.bits,
                    share=layer.agreement,
                ),
            )
            for name, layer in zip(names, self.layers, strict=True)
        ]
        columns = []
        for i, text in enumerate(self.reading.texts[:-1]):
            guesses = [layer.guesses[i] for layer in self.layers]
            marks = [Mark(g.text + (" ✓" if g.true else ""), heat=g.probability) for g in guesses]
            columns.append((Mark(text, muted=True), *marks, Mark(self.reading.texts[i + 1])))
        labels = (say("text"), *names, say("true"))
        blocks: list[Block] = [
            *notes_of(self.reading, say),
            Note(
                say(
                    "Below each token: what each layer would predict to follow it, if its output "
                    "went straight to the head; tinted by probability, ✓ where it is true."
                ),
                "dim",
            ),
            Strip(labels, columns, say("What each layer would predict"), scale="cool"),
            Bars(rows, say("Surprise by the true tokens, bits a token")),
        ]
        return Page(say("Layers (logit lens)"), blocks)


@torch.inference_mode()
def inspect_layers(model: Transformer, tokenizer: Tokenizer, text: str) -> LayersView:
    """Apply the final norm and the head to each layer's output: `jielong inspect layers`.

    Args:
        model, tokenizer: as `load` gives them.
        text: read as a document, up to the model's context.

    Returns:
        For each layer, the embedding first, T − 1 guesses (the next token after each but the last)
        and the mean surprise, in bits.

    Raises:
        DataError: there is no text, or the tokenizer cannot read it.
    """
    reading = read(model, tokenizer, text, least=2)
    streams = residual_streams(model, reading.tokens(model.device))
    true = torch.tensor(reading.ids[1:], device=model.device)
    lens = [_lens(model, stream[0, :-1], true) for stream in streams]
    last = lens[-1][1]
    layers = []
    for number, (probabilities, ids, bits) in enumerate(lens):
        guesses = tuple(
            LayerGuess(token, spelled(tokenizer.piece(token)), p, token == follows)
            for token, p, follows in zip(
                ids.tolist(), probabilities.tolist(), true.tolist(), strict=True
            )
        )
        layers.append(LensLayer(number, guesses, bits, float((ids == last).float().mean())))
    return LayersView(reading, tuple(layers))


def _lens(model: Transformer, stream: Tensor, true: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return probability and id of the likeliest token, (T − 1,) each, and the true ones' bits."""
    logs = model.logits(model.model.norm(stream)).float().log_softmax(-1)
    best = logs.max(-1)
    bits = -float(logs.gather(1, true[:, None]).mean()) / math.log(2)
    return best.values.exp(), best.indices, bits


def residual_streams(model: Transformer, tokens: Tensor) -> list[Tensor]:
    """Return the residual stream (B, T, H) after the embedding and after each layer."""
    streams: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        streams.append(output)

    modules = [model.model.embed_tokens, *model.model.layers]
    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        model.hidden_states(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return streams
