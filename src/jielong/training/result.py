"""What a run gives back: where it ended, and its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.checkpoint.checkpoint import step_name
from jielong.training.state import TrainState


@dataclass(frozen=True)
class RunResult:
    """Where a run ended, its model and what stopped it."""

    folder: Path
    checkpoint: Path  # the run's model: the best by held-out loss, or the last if none was measured
    step: int  # of the last checkpoint
    total_steps: int
    validation: dict[str, Any] | None  # held-out likelihood of the model, and its `step`
    signal: int | None  # of SIGINT, SIGTERM, SIGUSR1; none if the budget was spent
    tokens: int  # targets trained on, over all starts of the run
    parameters: int
    seconds: float  # of this start
    plan: dict[str, Any]  # what followed from settings, text and model, by name


def result_of(state: TrainState, signal: int | None, seconds: float) -> RunResult:
    """Where a run has ended."""
    progress, best = state.progress, state.best_checkpoint()
    return RunResult(
        folder=state.folder.path,
        checkpoint=best or state.folder.checkpoints / step_name(progress.step),
        step=progress.step,
        total_steps=state.plan.total_steps,
        validation=progress.best_validation if best else progress.validation,
        signal=signal,
        tokens=progress.tokens,
        parameters=state.model.num_parameters(),
        seconds=seconds,
        plan=state.plan.to_json(),
    )
