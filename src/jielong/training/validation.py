"""Held-out likelihood and samples along a run, with the weights that are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jielong.config.sampling import Sampling
from jielong.evaluation.likelihood import (
    EvaluationWindows,
    Likelihood,
    Share,
    evaluate_stream,
)
from jielong.generation.generate import TextGenerator
from jielong.observe.console import Console
from jielong.observe.metrics import MetricsFile
from jielong.runtime.device import autocast
from jielong.training.memory import free_memory, is_out_of_memory
from jielong.training.state import Parts, Progress


def is_due(parts: Parts, step: int) -> bool:
    """Whether a validation follows the step number `step` (1 is the first)."""
    return step > 0 and (step % parts.plan.eval_interval == 0 or step == parts.plan.total_steps)


def is_missing(parts: Parts, progress: Progress) -> bool:
    """Whether this state was saved before the validation that follows its step."""
    measured = progress.validation is not None and progress.validation["step"] == progress.step
    held_out = parts.dataset.validation is not None
    return held_out and not measured and is_due(parts, progress.step)


def validate(parts: Parts, progress: Progress, console: Console, records: MetricsFile) -> None:
    """Likelihood of the held-out split, and a sample; draws nothing from training's randomness.

    The best checkpoint is chosen by the same `eval_tokens` held-out tokens at each step; the last
    validation adds the likelihood of all of them.
    """
    with parts.averaged_weights():
        _measure(parts, progress, console, records, done={})
        _sample(parts, progress.step, console, records)


def catch_up(parts: Parts, progress: Progress, console: Console, records: MetricsFile) -> None:
    """The validation of the checkpoint that the run goes on from: as recorded, or made now."""
    done = parts.world.all_gather(records.resumed)[0]
    with parts.averaged_weights():
        _measure(parts, progress, console, records, done)
        if "validation" not in done:
            _sample(parts, progress.step, console, records)


def _measure(
    parts: Parts,
    progress: Progress,
    console: Console,
    records: MetricsFile,
    done: Mapping[str, Any],
) -> None:
    """Fills in `progress.validation` and the best step; `done` has records made before, by kind."""
    stream, step = parts.dataset.validation, progress.step
    if stream is None:
        return
    eval_tokens = parts.config.run.eval_tokens
    passes: dict[str, int | None] = {"validation": eval_tokens}
    if step == parts.plan.total_steps and len(stream) > eval_tokens:
        passes["final_validation"] = None
    for kind, max_tokens in passes.items():
        if kind in done:
            found = {f.name: done[kind][f.name] for f in dataclasses.fields(Likelihood)}
        else:
            found = dataclasses.asdict(_likelihood(parts, progress, max_tokens))
            of = "held-out" if max_tokens else "whole held-out split:"
            console.validation(step, found, of)
            records.write(kind, step, **found)
        progress.validation = {"step": step, **found}
        loss, best = found["loss"], progress.best_loss
        if kind == "validation" and loss is not None and (best is None or loss < best):
            progress.best_step, progress.best_loss = step, loss


def _likelihood(parts: Parts, progress: Progress, max_tokens: int | None) -> Likelihood:
    """Of the held-out split, with as many windows at once as training has found to fit."""
    assert parts.dataset.validation is not None
    world = parts.world
    micro_batch_size = progress.micro_batch_size or parts.plan.micro_batch_size
    at_once = math.ceil(micro_batch_size / world.world_size)
    while True:
        try:
            return evaluate_stream(
                parts.model,
                parts.dataset.validation,
                parts.tokenizer.token_bytes(),
                EvaluationWindows(parts.config.data.max_seq_len, at_once, max_tokens),
                Share(world.rank, world.world_size, world.sum_number),
                autocast=autocast(parts.model.device, parts.dtype),
            )
        except Exception as error:
            # with several ranks the others wait within the pass for what this one owes
            if not is_out_of_memory(error) or at_once == 1 or world.world_size > 1:
                raise
        free_memory()
        at_once = math.ceil(at_once / 2)


def _sample(parts: Parts, step: int, console: Console, records: MetricsFile) -> None:
    """Continues the run's prompts, on rank 0."""
    run = parts.config.run
    if not parts.world.is_main or not run.sample_tokens:
        return
    sampling = Sampling(seed=parts.config.training.seed)
    generator = TextGenerator(parts.model, parts.tokenizer)
    texts = generator.batch(parts.prompts, run.sample_tokens, sampling)
    for prompt, text in zip(parts.prompts, texts, strict=True):
        console.sample(prompt, text)
        records.write("sample", step, prompt=prompt, text=text)
