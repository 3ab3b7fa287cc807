"""torch.compile where it pays: its warm-up weighed against the length of the run."""

from __future__ import annotations

import torch

from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.errors import first_line
from jielong.model.moe import Experts
from jielong.model.transformer import Transformer
from jielong.training.trial import try_batch

# Training arithmetic below which compiling costs more than it saves. Counted, not timed, so that
# a resumed run decides as the first did: about ten minutes of work. On a CPU it has never brought
# anything (docs/experiments.md).
LEAST_FLOPS = {"cpu": float("inf"), "cuda": 3e16, "mps": float("inf")}


def wants_compile(config: Config, parameters: int, tokens: int, device: torch.device) -> bool:
    """Whether a run over `tokens` tokens should compile its layers."""
    if config.training.compile != "auto":
        return config.training.compile == "on"
    return 6.0 * parameters * tokens >= LEAST_FLOPS[device.type]


def compile_layers(model: Transformer, batch: Batch, dtype: torch.dtype) -> str | None:
    """Compiles each decoder layer and tries a batch; on failure the model runs uncompiled.

    The layers are alike, so the first one's code serves all: a fraction of the warm-up that the
    whole model takes.

    Returns:
        None, or why it does not compile here.
    """
    for module in model.modules():
        if isinstance(module, Experts):
            module.keep_uncompiled(model.device, dtype)
    model.model.per_document = False
    for layer in model.model.layers:
        layer.compile()
    try:
        try_batch(model, batch, dtype)
    except Exception as error:
        for layer in model.model.layers:
            layer._compiled_call_impl = None
        model.model.per_document = True
        torch.compiler.reset()
        return first_line(error)[:120]
    return None
