"""Held-out likelihood and samples along a run, with the weights that are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jielong.checkpoint.checkpoint import load_weights
from jielong.config.sampling import Sampling
from jielong.data.shards import Dataset, TokenStream
from jielong.evaluation.likelihood import (
    EvaluationWindows,
    Share,
    evaluate_stream,
)
from jielong.evaluation.sums import Likelihood, mixed_likelihood
from jielong.generation.generate import TextGenerator
from jielong.runtime.device import autocast
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.divergence import explain_divergence
from jielong.training.memory import free_memory, is_out_of_memory
from jielong.training.parallel import whole_model
from jielong.training.state import Progress, TrainState
from jielong.training.texts import OpenText
from jielong.training.validation_suites import measure_suites

# more than the noise between validations, less than what memorising soon costs
CLEARLY_WORSE = 0.01  # of the best loss
PROMPT_TOKENS = 12  # of a held-out text's opening, for the samples drawn in training


def validation_is_due(state: TrainState, step: int) -> bool:
    """Whether a validation follows the step number `step` (1 is the first)."""
    return step > 0 and (step % state.plan.eval_interval == 0 or step == state.plan.total_steps)


def validation_is_missing(state: TrainState) -> bool:
    """Whether this state was saved before the validation that follows its step."""
    latest, step = state.progress.validation, state.progress.step
    measured = latest is not None and latest["step"] == step
    return state.texts.held_out and not measured and validation_is_due(state, step)


def validate(state: TrainState) -> None:
    """Likelihood of the held-out split, and a sample; draws nothing from training's randomness.

    The best checkpoint is chosen by the same `eval_tokens` held-out tokens at each step; the last
    validation adds the likelihood of all of them.
    """
    with state.averaged_weights():
        _measure(state, done={})
        _sample(state)
        measure_suites(state, done={})
    ends = state.progress.step == state.plan.total_steps or stops_early(state)
    if not ends and (said := explain_divergence(state)):  # at its end the run says so by itself
        state.console.line(said, "yellow")


def validate_resumed(state: TrainState) -> None:
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
    if not state.texts.held_out:
        return
    step, eval_tokens = progress.step, state.plan.eval_tokens
    passes: dict[str, int | None] = {"validation": eval_tokens}
    if step == state.plan.total_steps and _longest_split(state) > eval_tokens:
        passes["final_validation"] = None
    for kind, max_tokens in passes.items():
        found = _of_all_texts(state, _Pass(step, max_tokens, kind, done))
        progress.validation = {"step": step, **found}
        if kind == "validation":
            _compare_with_best(progress, found)
        elif step == progress.best_step:
            progress.best_validation = progress.validation


def _longest_split(state: TrainState) -> int:
    """Held-out tokens of the text that has most of them."""
    splits = [text.dataset.validation for text in state.texts.every]
    return max(len(split) for split in splits if split is not None)


@dataclasses.dataclass(frozen=True)
class _Pass:
    """One pass over the held-out texts.

    Attributes:
        max_tokens: as many of each text; None for all.
        kind: under which it is recorded.
        done: records made before, by kind.
    """

    step: int
    max_tokens: int | None
    kind: str
    done: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _of_all_texts(state: TrainState, wanted: _Pass) -> dict[str, Any]:
    """The likelihood of the held-out text; of an older one, as `replay`; of a mixture's `sources`.

    Of a mixture, the numbers are those of its texts by their shares. All are shown, and recorded:
    as the kind, `replay_…` and `source_NAME_…`.
    """
    texts = state.texts
    if not texts.is_mixture:
        found = _of_text(state, wanted, texts.main, "", "")
        if (old := texts.replayed) is not None and old.dataset.validation is not None:
            found |= {"replay": _of_text(state, wanted, old, "replay_", "older text, ")}
        return found
    measured = [text for text in texts.every if text.dataset.validation is not None]
    sources = {
        text.name: _of_text(state, wanted, text, f"source_{text.name}_", f"{text.name}, ")
        for text in measured
    }
    each = [(text.share, Likelihood(**_as_numbers(sources[text.name]))) for text in measured]
    values = dataclasses.asdict(mixed_likelihood(each))
    if wanted.kind not in wanted.done:
        _show(state, wanted, values, "", "")
    return {**values, "sources": sources}


def _of_text(
    state: TrainState, wanted: _Pass, text: OpenText, prefix: str, of: str
) -> dict[str, Any]:
    """The likelihood of the held-out part of a text: as recorded, or measured now."""
    if record := wanted.done.get(prefix + wanted.kind):
        return {f.name: record.get(f.name) for f in dataclasses.fields(Likelihood)}
    assert text.dataset.validation is not None
    values = dataclasses.asdict(likelihood(state, text.dataset.validation, wanted.max_tokens))
    _show(state, wanted, values, prefix, of)
    return values


def _show(state: TrainState, wanted: _Pass, values: dict[str, Any], prefix: str, of: str) -> None:
    label = f"{of}held-out" if wanted.max_tokens else f"{of}whole held-out split:"
    state.console.validation(wanted.step, values, label)
    state.metrics.write(prefix + wanted.kind, wanted.step, **values)


def _as_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers with NaN where a record has null, as of a diverged run."""
    named = ("loss", "perplexity", "bits_per_byte")
    return dict(values) | {name: math.nan for name in named if values[name] is None}


def _compare_with_best(progress: Progress, found: dict[str, Any]) -> None:
    # Not by replayed text, as the run is there to learn the new: the older one's loss is as a rule
    # lowest at the start, so with it the best would be a model that has learnt little.
    loss, best = found["loss"], progress.best_loss
    if loss is not None and (best is None or loss < best):
        progress.best_step, progress.best_loss = progress.step, loss
        progress.best_validation = {"step": progress.step, **found}
    clearly_worse = best is not None and (loss is None or loss > best * (1 + CLEARLY_WORSE))
    progress.worse = progress.worse + 1 if clearly_worse else 0


def stops_early(state: TrainState) -> bool:
    """Whether the held-out loss has been clearly above its best for `patience` validations."""
    patience = state.config.run.patience
    return 0 < patience <= state.progress.worse


def measure_best(state: TrainState) -> None:
    """At the end of a run: all held-out text by the best checkpoint, where that is another.

    Leaves the model with the best checkpoint's weights.
    """
    progress, best, folder = state.progress, state.progress.best_step, state.best_checkpoint()
    if not state.texts.held_out or folder is None or best in (None, progress.step):
        return
    if _longest_split(state) <= state.plan.eval_tokens:
        return  # all is measured each time
    load_weights(state.model, folder)
    found = _of_all_texts(state, _Pass(best, None, "final_validation"))
    progress.best_validation = {"step": best, **found}


def likelihood(state: TrainState, stream: TokenStream, max_tokens: int | None) -> Likelihood:
    """Of a held-out split, with as many windows at once as training has found to fit."""
    world, length = state.world, state.config.data.max_seq_len
    at_once = math.ceil(state.micro_batch_size / world.world_size)
    while True:
        try:
            with world.limit("measuring the held-out text"):
                return evaluate_stream(
                    state.model,
                    stream,
                    state.tokenizer.token_bytes(),
                    EvaluationWindows(length, at_once, max_tokens),
                    Share(world.rank, world.world_size, world.sum_number, world.beat),
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
    if not run.sample_tokens or not seldom or not state.whole_fits:
        return
    model = whole_model(state.model, keep=state.world.is_main)  # for which every rank is needed
    if model is None:
        return
    prompts = list(run.sample_prompts) or openings(state.dataset, state.tokenizer)
    sampling = Sampling(seed=state.config.training.seed)
    generator = TextGenerator(model, state.tokenizer)
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
