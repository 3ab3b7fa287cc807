"""Held-out likelihood and samples along a run, with the weights that are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jielong.checkpoint.checkpoint import load_weights
from jielong.config.sampling import Sampling
from jielong.data.shards import Dataset, TokenStream
from jielong.evaluation.likelihood import (
    EvaluationWindows,
    Share,
    evaluate_stream,
)
from jielong.evaluation.sums import Likelihood
from jielong.generation.generate import TextGenerator
from jielong.runtime.device import autocast
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.divergence import explain_divergence
from jielong.training.memory import free_memory, is_out_of_memory
from jielong.training.state import Progress, TrainState
from jielong.training.validation_suites import measure_suites

# more than the noise between validations, less than what memorising soon costs
CLEARLY_WORSE = 0.01  # of the best loss
PROMPT_TOKENS = 12  # of a held-out text's opening, for the samples drawn in training


def is_due(state: TrainState, step: int) -> bool:
    """Whether a validation follows the step number `step` (1 is the first)."""
    return step > 0 and (step % state.plan.eval_interval == 0 or step == state.plan.total_steps)


def is_missing(state: TrainState) -> bool:
    """Whether this state was saved before the validation that follows its step."""
    latest, step = state.progress.validation, state.progress.step
    measured = latest is not None and latest["step"] == step
    return state.dataset.validation is not None and not measured and is_due(state, step)


def validate(state: TrainState) -> None:
    """Likelihood of the held-out split, and a sample; draws nothing from training's randomness.

    The best checkpoint is chosen by the same `eval_tokens` held-out tokens at each step; the last
    validation adds the likelihood of all of them.
    """
    with state.averaged_weights():
        _measure(state, done={})
        _sample(state)
        measure_suites(state, done={})
    ends = state.progress.step == state.plan.total_steps or has_turned(state)
    if not ends and (said := explain_divergence(state)):  # at its end the run says so by itself
        state.console.line(said, "yellow")


def catch_up(state: TrainState) -> None:
    """The validation of the checkpoint that the run goes on from: as recorded, or made now."""
    done = state.world.all_gather(state.metrics.resumed)[0]
    with state.averaged_weights():
        _measure(state, done)
        if "validation" not in done:
            _sample(state)
        measure_suites(state, done)


def _measure(state: TrainState, done: Mapping[str, Any]) -> None:
    """Fill in `progress.validation` and the best step; `done` has records made before, by kind."""
    progress = state.progress
    if state.dataset.validation is None:
        return
    step, eval_tokens = progress.step, state.plan.eval_tokens
    passes: dict[str, int | None] = {"validation": eval_tokens}
    if step == state.plan.total_steps and _longest_split(state) > eval_tokens:
        passes["final_validation"] = None
    for kind, max_tokens in passes.items():
        found = _of_both_texts(state, step, max_tokens, kind, done)
        progress.validation = {"step": step, **found}
        if kind == "validation":
            _compare_with_best(progress, found)
        elif step == progress.best_step:
            progress.best_validation = progress.validation


def _longest_split(state: TrainState) -> int:
    """Held-out tokens of the new text, or of the older one that is mixed in if those are more."""
    splits = [d.validation for d in (state.dataset, state.replay) if d is not None]
    return max(len(split) for split in splits if split is not None)


def _of_both_texts(
    state: TrainState,
    step: int,
    max_tokens: int | None,
    kind: str,
    done: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The likelihood of the held-out text, and as `replay` that of the older text that is mixed in.

    Both are shown, and recorded as `kind` and `replay_…`; `done` has records made before, by kind.
    """
    whole = "" if max_tokens else "whole "
    found: dict[str, Any] = {}
    for dataset, prefix, of in (
        (state.dataset, "", f"{whole}held-out"),
        (state.replay, "replay_", f"older text, {whole}held-out"),
    ):
        if dataset is None or dataset.validation is None:
            continue
        if record := done.get(prefix + kind):
            values = {f.name: record.get(f.name) for f in dataclasses.fields(Likelihood)}
        else:
            values = dataclasses.asdict(likelihood(state, dataset.validation, max_tokens))
            state.console.validation(step, values, of if max_tokens else f"{of} split:")
            state.metrics.write(prefix + kind, step, **values)
        found |= {"replay": values} if prefix else values
    return found


def _compare_with_best(progress: Progress, found: dict[str, Any]) -> None:
    # By the new text alone, which the run is there to learn: the loss of the older one is as a rule
    # lowest at the start, so with it the best would be a model that has learnt little.
    loss, best = found["loss"], progress.best_loss
    if loss is not None and (best is None or loss < best):
        progress.best_step, progress.best_loss = progress.step, loss
        progress.best_validation = {"step": progress.step, **found}
    clearly_worse = best is not None and (loss is None or loss > best * (1 + CLEARLY_WORSE))
    progress.worse = progress.worse + 1 if clearly_worse else 0


def has_turned(state: TrainState) -> bool:
    """Whether the held-out loss has been clearly above its best for `patience` validations."""
    patience = state.config.run.patience
    return 0 < patience <= state.progress.worse


def measure_best(state: TrainState) -> None:
    """At the end of a run: all held-out text by the best checkpoint, where that is another.

    Leaves the model with the best checkpoint's weights.
    """
    stream, progress, best = state.dataset.validation, state.progress, state.progress.best_step
    folder = state.best_checkpoint()
    if stream is None or folder is None or best in (None, progress.step):
        return
    if _longest_split(state) <= state.plan.eval_tokens:
        return  # all is measured each time
    load_weights(state.model, folder)
    found = _of_both_texts(state, best, None, "final_validation")
    progress.best_validation = {"step": best, **found}


def likelihood(state: TrainState, stream: TokenStream, max_tokens: int | None) -> Likelihood:
    """Of a held-out split, with as many windows at once as training has found to fit."""
    world, length = state.world, state.config.data.max_seq_len
    at_once = math.ceil(state.micro_batch_size / world.world_size)
    while True:
        try:
            return evaluate_stream(
                state.model,
                stream,
                state.tokenizer.token_bytes(),
                EvaluationWindows(length, at_once, max_tokens),
                Share(world.rank, world.world_size, world.sum_number),
                autocast=autocast(state.model.device, state.train_step.dtype),
            )
        except Exception as error:
            # with several ranks the others wait within the pass for what this one owes
            if not is_out_of_memory(error) or at_once == 1 or world.world_size > 1:
                raise
        free_memory()
        at_once = math.ceil(at_once / 2)


def _sample(state: TrainState) -> None:
    """Continue the run's prompts, or how the first held-out texts begin, about ten times a run."""
    run, step = state.config.run, state.progress.step
    total, interval = state.plan.total_steps, state.plan.eval_interval
    tenths = [10 * s // total for s in (step - interval, step)]  # of the run that is done
    seldom = tenths[0] < tenths[1] or step == total
    if not state.world.is_main or not run.sample_tokens or not seldom:
        return
    prompts = list(run.sample_prompts) or openings(state.dataset, state.tokenizer)
    sampling = Sampling(seed=state.config.training.seed)
    generator = TextGenerator(state.model, state.tokenizer)
    texts = generator.batch(prompts, run.sample_tokens, sampling)
    samples = list(zip(prompts, texts, strict=True))
    state.console.samples(samples)
    state.metrics.samples(step, samples)


def openings(dataset: Dataset, tokenizer: Tokenizer, count: int = 2) -> list[str]:
    """How the first held-out texts begin."""
    stream = dataset.validation or dataset.train
    starts = [int(start) for start in stream.documents[:count]]
    ids = [stream.read(start, min(start + PROMPT_TOKENS, len(stream))) for start in starts]
    return [tokenizer.decode(row.tolist(), skip_special=True) for row in ids]
