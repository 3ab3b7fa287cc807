"""What a run gives back: where it ended, and its model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.checkpoint.checkpoint import step_name
from jielong.training.sources_read import read_shares
from jielong.training.state import TrainState

BITS = ("bits_per_byte", "bits_per_byte_error")


@dataclass(frozen=True)
class RunResult:
    """Where a run ended, its model and what stopped it.

    Attributes:
        folder: of the run.
        checkpoint: the run's model: the best by held-out loss, or the last if none was measured.
        step: of the last checkpoint, of `total_steps`.
        validation: held-out likelihood of the model by name (`loss` in nats a token,
            `bits_per_byte` and so on), and its `step`.
        signal: of SIGINT, SIGTERM, SIGUSR1; none if the budget was spent.
        tokens: targets trained on, over all starts of the run.
        seconds: of this start.
        plan: what followed from settings, text and model, by name.
        sources: of a mixture, by name: what was read, and how well.
    """

    folder: Path
    checkpoint: Path
    step: int
    total_steps: int
    validation: dict[str, Any] | None
    signal: int | None
    tokens: int
    parameters: int
    seconds: float
    plan: dict[str, Any]
    sources: dict[str, dict[str, Any]]


def result_of(state: TrainState, signal: int | None, seconds: float) -> RunResult:
    """Where a run has ended."""
    progress, best = state.progress, state.best_checkpoint()
    validation = progress.best_validation if best else progress.validation
    return RunResult(
        folder=state.folder.path,
        checkpoint=best or state.folder.checkpoints / step_name(progress.step),
        step=progress.step,
        total_steps=state.plan.total_steps,
        validation=validation,
        signal=signal,
        tokens=progress.tokens,
        parameters=state.model.num_parameters(),
        seconds=seconds,
        plan=state.plan.to_json(),
        sources=_sources(state, validation) if state.texts.is_mixture else {},
    )


def _sources(state: TrainState, validation: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What was read of each source of a mixture, and its held-out likelihood by the run's model."""
    read = read_shares(state, state.batches.windows_before(state.progress.step))
    found = (validation or {}).get("sources", {})
    return {
        name: {
            **dataclasses.asdict(of),
            **{key: found.get(name, {}).get(key) for key in ("loss", *BITS)},
        }
        for name, of in read.items()
    }
