"""The parts of a model, and the way of a batch through it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jielong.config.model import ModelConfig
from jielong.insight.arithmetic import Part, forward_flops, parts_of, training_flops
from jielong.model.loss import CHUNK_TOKENS
from jielong.model.moe import MixtureOfExperts, Routing
from jielong.model.transformer import DecoderLayer, Transformer, context_length
from jielong.present.blocks import Bars, Facts, Page, Table
from jielong.present.result import Result
from jielong.present.words import Say


@dataclass(frozen=True)
class Passage:
    """What goes into a module and what comes out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    times: int  # modules of the same kind, one after another


@dataclass(frozen=True)
class ModelView(Result):
    """A model without its weights' values.

    Attributes:
        active_parameters: those that a token passes: of a mixture of experts fewer than all.
        forward_flops, training_flops: of one token, of a window without document borders.
        way: of a batch of `rows` windows, module by module.
    """

    family: str
    parameters: int
    active_parameters: int
    window: int
    rows: int
    layers: int
    forward_flops: float
    training_flops: float
    parts: tuple[Part, ...]
    way: tuple[Passage, ...]

    def page(self, say: Say) -> Page:
        """Return the parts as a table and as bars, and the way of a batch."""
        millions = f"{self.parameters / 1e6:.3f}M"
        facts = [
            (say("parameters"), f"{self.parameters:,}"),
            (
                say("FLOPs a token"),
                say(
                    "{forward:.3g} forward, {training:.3g} forward and backward",
                    forward=self.forward_flops,
                    training=self.training_flops,
                ),
            ),
        ]
        if self.active_parameters != self.parameters:
            facts.insert(1, (say("of them active"), f"{self.active_parameters:,}"))
        bars = []
        for kind, name in kind_names(say).items():
            count = sum(part.parameters for part in self.parts if part.kind == kind)
            share = f"{count:,} ({count / self.parameters:.1%})"
            bars.append((name, float(count), share))
        title = say("{family} of {size} parameters", family=self.family, size=millions)
        return Page(
            title,
            [
                Facts(facts),
                Bars(bars, say("Where the parameters are")),
                self._table(say),
                self._way(say),
            ],
        )

    def _table(self, say: Say) -> Table:
        rows = [
            (
                part.name,
                "×".join(map(str, part.shape)) or "–",
                f"{part.copies}",
                f"{part.parameters:,}" if part.parameters else "–",
                f"{part.flops:,.0f}" if part.flops else "–",
                f"{part.flops / self.forward_flops:.1%}" if part.flops else "–",
            )
            for part in self.parts
        ]
        columns = (
            *(say("part"), say("shape"), say("copies"), say("parameters")),
            *(say("FLOPs a token"), say("share")),
        )
        return Table(
            columns, rows, say("Parts (N stands for each of {n} layers)", n=self.layers), left=2
        )

    def _way(self, say: Say) -> Table:
        title = say(
            "The way of a batch of {rows} × {window} tokens", rows=self.rows, window=self.window
        )
        rows = [
            (
                passage.name + (f"  × {passage.times}" if passage.times > 1 else ""),
                _shape(passage.inputs),
                _shape(passage.outputs),
            )
            for passage in self.way
        ]
        return Table((say("module"), say("in"), say("out")), rows, title, left=3)


def kind_names(say: Say) -> dict[str, str]:
    """Return what the kinds of parts are called."""
    return {
        "embedding": say("embedding"),
        "attention": say("attention"),
        "feed-forward": say("feed-forward"),
        "norms": say("norms"),
        "head": say("output head"),
    }


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "()"


def inspect_model(
    config: ModelConfig, window: int | None = None, rows: int = 1, document: float | None = None
) -> ModelView:
    """Return the parts of a model and the way of a batch through it: `jielong inspect model`.

    Nothing is computed: shapes come from a pass of tensors without data (torch's meta device).

    Args:
        config: the architecture, as `model.config` of a model that was loaded.
        window: tokens of a window; default the model's context.
        rows: windows of the batch.
        document: mean tokens of a document, if attention stays within documents.

    Returns:
        Parameters by part, FLOPs of a token, and the shapes in and out of each module on the way
        of a batch (rows, window).
    """
    window = window or context_length(config)
    with torch.device("meta"):
        model = Transformer(config)
    parts = parts_of(config, window, document)
    family = "Qwen3" if config.qk_norm else "Llama"
    if config.use_moe:
        family += f" ({config.num_experts} experts, {config.num_experts_per_tok} a token)"
    return ModelView(
        family=family,
        parameters=model.num_parameters(),
        active_parameters=model.num_active_parameters(),
        window=window,
        rows=rows,
        layers=config.num_hidden_layers,
        forward_flops=forward_flops(parts),
        training_flops=training_flops(parts),
        parts=tuple(parts),
        way=tuple(_way(model, rows, window)),
    )


@torch.no_grad()
def _way(model: Transformer, rows: int, window: int) -> list[Passage]:
    """The shapes of a forward pass, of which the first layer stands for all."""
    seen: list[Passage] = []

    def note(name: str, times: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            result = output.scores if isinstance(output, Routing) else output
            seen.append(Passage(name, tuple(inputs[0].shape), tuple(result.shape), times))

        return hook

    layers = model.config.num_hidden_layers
    for module in list(model.modules()):
        if isinstance(module, MixtureOfExperts):
            module.experts = _ExpertsShape()  # type: ignore[assignment]
    for name, module in model.named_modules():
        first = re.fullmatch(r"model\.layers\.0\.(.+)", name)
        inner = first is not None and not re.search(r"(shared_experts|norm)\b", name)
        if name in ("model.embed_tokens", "model.norm") or inner:
            label = f"N.{first[1]}" if first else name.removeprefix("model.")
            module.register_forward_hook(note(label, layers if first else 1))
        elif isinstance(module, DecoderLayer) and name == "model.layers.0":
            module.register_forward_hook(note("N", layers))
    tokens = torch.zeros(rows, window, dtype=torch.int64, device="meta")
    hidden = model.hidden_states(tokens)
    chunk = min(CHUNK_TOKENS, rows * window)
    seen.append(
        Passage(
            f"lm_head, {chunk} tokens at a time",
            (chunk, hidden.shape[2]),
            (chunk, model.config.vocab_size),
            1,
        )
    )
    seen.append(Passage("loss", (rows * window,), (), 1))
    return seen


class _ExpertsShape(nn.Module):
    """In place of the experts, since how many rows each gets is not known without data."""

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        return torch.empty_like(x)
