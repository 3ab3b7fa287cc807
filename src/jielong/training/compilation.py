"""torch.compile where it pays: its warm-up weighed against the length of the run."""

from __future__ import annotations

import torch

from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.errors import first_line
from jielong.model.moe import Experts
from jielong.model.transformer import Transformer
from jielong.training.state import TrainState
from jielong.training.trial import try_batch

# Training arithmetic below which compiling costs more than it saves. Counted, not timed, so that
# a resumed run decides as the first did: about ten minutes of work. On a CPU it has never brought
# anything (docs/experiments.md).
LEAST_FLOPS = {"cpu": float("inf"), "cuda": 3e16, "mps": float("inf")}


def compile_if_it_pays(state: TrainState) -> None:
    """Compile the layers where `--compile` and the length of the run say so."""
    windows = state.batches.windows_before(state.plan.total_steps)
    tokens = windows * state.config.data.max_seq_len
    if not wants_compile(state.config, state.model.num_parameters(), tokens, state.model.device):
        return
    if state.train_step.division:  # FSDP's hooks within compiled layers: no GPU has tried it
        state.console.line("compile    not the layers of a divided model: they run as written")
        return
    state.console.line("compiling …")
    step = min(state.progress.step, state.plan.total_steps - 1)  # its shards are here
    batch = state.batches.batch(step, state.world.rank, state.world.world_size)
    first = state.micro_batches(batch, step)[0]
    problem = compile_layers(state.model, first, state.train_step.dtype)
    if problem:
        state.console.line(
            f"torch.compile does not work here, going on without: {problem}", "yellow"
        )


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
