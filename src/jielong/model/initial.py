"""The initial weights, drawn from torch's global generator: of a model in parts the same bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from jielong.model.attention import Rotary
from jielong.model.moe import PROJECTIONS, Experts, Router
from jielong.runtime.parts import local, part_of

if TYPE_CHECKING:
    from jielong.model.transformer import Transformer

Fill = Callable[[Tensor], object]  # gives a whole tensor its values
STD = 0.02


@torch.no_grad()
def initialise(model: Transformer) -> None:
    """Draw the weights that training begins from, over those that torch's layers begin with."""
    _draw(model, lambda weight, fill: fill(weight))


@torch.no_grad()
def initialise_parts(model: Transformer) -> None:
    """Give a model that was made without memory, and then divided, the weights of a whole one.

    All ranks draw all values in the order of `Transformer(config)`, one matrix at a time, and keep
    their rows of it: so the weights do not depend on the number of ranks, and neither does what
    the generator gives next.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):  # draws by itself when it is made, which counts
            nn.Linear(module.in_features, module.out_features, bias=False)
        elif isinstance(module, nn.Embedding):
            nn.Embedding(module.num_embeddings, module.embedding_dim)
        elif isinstance(module, nn.RMSNorm):
            module.reset_parameters()
        elif isinstance(module, Rotary):
            module.fill()
        elif isinstance(module, Experts):
            for name in PROJECTIONS:
                _keep_rows(getattr(module, name), partial(nn.init.normal_, std=STD))
        if isinstance(module, Router) and module.e_score_correction_bias is not None:
            module.e_score_correction_bias.zero_()
    _draw(model, _keep_rows)


def _draw(model: Transformer, give: Callable[[Tensor, Fill], object]) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            give(module.weight, partial(nn.init.normal_, std=STD))
    # with tied embeddings, a larger init would make the model predict its own input token
    std = min(STD, 4 / model.config.hidden_size)
    give(model.model.embed_tokens.weight, partial(nn.init.normal_, std=std))
    for name, p in model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            give(p, nn.init.zeros_)  # each layer starts as the identity on the residual stream


def _keep_rows(parameter: Tensor, fill: Fill) -> None:
    """Give a parameter this rank's rows of a tensor that is filled on the host."""
    whole = torch.empty(parameter.shape)
    fill(whole)
    local(parameter).copy_(part_of(whole, parameter))
