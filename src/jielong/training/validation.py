"""Held-out likelihood and samples along a run, with the weights that are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jielong.config.sampling import Sampling
from jielong.evaluation.likelihood import Likelihood, evaluate_stream
from jielong.generation.generate import TextGenerator
from jielong.observe.console import Display
from jielong.observe.metrics import MetricsFile
from jielong.runtime.device import autocast
from jielong.training.memory import is_out_of_memory, release
from jielong.training.state import Parts, Progress


def eval_interval(parts: Parts) -> int:
    """Steps between two validations."""
    return parts.config.run.eval_interval or -(-parts.schedule.total_steps // 10)


def is_due(parts: Parts, step: int) -> bool:
    """Whether a validation follows the step number `step` (1 is the first)."""
    return step > 0 and (step % eval_interval(parts) == 0 or step == parts.schedule.total_steps)


def is_missing(parts: Parts, progress: Progress) -> bool:
    """Whether this state was saved before the validation that follows its step."""
    measured = progress.validation is not None and progress.validation["step"] == progress.step
    held_out = parts.dataset.validation is not None
    return held_out and not measured and is_due(parts, progress.step)


def validate(parts: Parts, progress: Progress, screen: Display, records: MetricsFile) -> None:
    """Likelihood of the held-out split, and a sample; draws nothing from training's randomness.

    The best checkpoint is chosen by the same `eval_tokens` held-out tokens at each step; the last
    validation adds the likelihood of all of them.
    """
    with parts.as_measured():
        _measure(parts, progress, screen, records, done={})
        _sample(parts, progress.step, screen, records)


def catch_up(parts: Parts, progress: Progress, screen: Display, records: MetricsFile) -> None:
    """The validation of the checkpoint that the run goes on from: as recorded, or made now."""
    done = parts.ranks.gather(records.resumed)[0]
    with parts.as_measured():
        _measure(parts, progress, screen, records, done)
        if "validation" not in done:
            _sample(parts, progress.step, screen, records)


def _measure(
    parts: Parts,
    progress: Progress,
    screen: Display,
    records: MetricsFile,
    done: Mapping[str, Any],
) -> None:
    """Fills in `progress.validation` and the best step; `done` has records made before, by kind."""
    stream, step = parts.dataset.validation, progress.step
    if stream is None:
        return
    eval_tokens = parts.config.run.eval_tokens
    passes: dict[str, int | None] = {"validation": eval_tokens}
    if step == parts.schedule.total_steps and len(stream) > eval_tokens:
        passes["final_validation"] = None
    for kind, max_tokens in passes.items():
        if kind in done:
            found = {f.name: done[kind][f.name] for f in dataclasses.fields(Likelihood)}
        else:
            found = dataclasses.asdict(_likelihood(parts, progress, max_tokens))
            of = "held-out" if max_tokens else "whole held-out split:"
            screen.validation(step, found, of)
            records.write(kind, step, **found)
        progress.validation = {"step": step, **found}
        loss, best = found["loss"], progress.best_loss
        if kind == "validation" and loss is not None and (best is None or loss < best):
            progress.best_step, progress.best_loss = step, loss


def _likelihood(parts: Parts, progress: Progress, max_tokens: int | None) -> Likelihood:
    """Of the held-out split, with as many windows at once as training has found to fit."""
    assert parts.dataset.validation is not None
    ranks = parts.ranks
    at_once = -(-parts.batches.batch_size // (progress.pieces or 1) // ranks.world_size)
    while True:
        try:
            return evaluate_stream(
                parts.model,
                parts.dataset.validation,
                parts.config.data.max_seq_len,
                at_once,
                parts.tokenizer.token_bytes(),
                max_tokens=max_tokens,
                autocast=autocast(parts.model.device, parts.dtype),
                rank=ranks.rank,
                world_size=ranks.world_size,
                sum_over_ranks=ranks.sum_number,
            )
        except Exception as error:
            # with several ranks the others wait within the pass for what this one owes
            if not is_out_of_memory(error) or at_once == 1 or ranks.world_size > 1:
                raise
        release()
        at_once = -(-at_once // 2)


def _sample(parts: Parts, step: int, screen: Display, records: MetricsFile) -> None:
    """Continues the run's prompts, on rank 0."""
    run = parts.config.run
    if not parts.ranks.is_main or not run.sample_tokens:
        return
    sampling = Sampling(seed=parts.config.training.seed)
    generator = TextGenerator(parts.model, parts.tokenizer)
    texts = generator.batch(parts.prompts, run.sample_tokens, sampling)
    for prompt, text in zip(parts.prompts, texts, strict=True):
        screen.sample(prompt, text)
        records.write("sample", step, prompt=prompt, text=text)
