"""Suites along training, quick ones: after each validation, recorded by tokens and words seen."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from jielong.config.suites import suite_requests
from jielong.errors import DataError
from jielong.evaluation.suites.results import SuiteResult, in_short
from jielong.evaluation.suites.run import run_suites
from jielong.evaluation.suites.subject import Options, Subject
from jielong.training.parallel import whole_model
from jielong.training.shards_ahead import stays_here
from jielong.training.state import TrainState

ITEMS = 100  # of each set
SAMPLE_TOKENS = 2**15  # of the text, to count its words
# what stands between spaces; in Chinese and Japanese a character
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")


def measure_suites(state: TrainState, done: Mapping[str, Any]) -> None:
    """Measure the suites of the settings and record them; rank 0 alone does so.

    Draws nothing from training's randomness. What a suite lacks does not stop the run.

    Args:
        done: records of this step that were made before, by kind.
    """
    requests = suite_requests(state.config.run.eval_suite)
    requests = tuple(r for r in requests if f"suite_{r.name}" not in done)
    if not requests or not state.whole_fits:
        return
    model = whole_model(state.model, keep=state.world.is_main)  # for which every rank is needed
    if model is None:
        return
    step = state.progress.step
    window = state.config.data.max_seq_len
    searched = stays_here(state.texts)
    subject = Subject(
        name=str(state.folder.path),
        model=model,
        tokenizer=state.tokenizer,
        train=state.dataset.train,
        held_out=state.dataset.validation,
        batch_tokens=window * math.ceil(state.micro_batch_size / state.world.world_size),
        compared=False,
        searched=searched,
    )
    seen = {"tokens": state.progress.tokens, "words": _words_seen(state)}
    share = sum(stop - start for start, stop in searched) / len(state.dataset.train)
    was_training = model.training
    model.eval()
    try:
        with _uncompiled(state):
            for request in requests:
                try:
                    [result] = run_suites(subject, [request], Options(limit=ITEMS))
                except DataError as error:
                    state.console.line(f"suite {request.name} is left out: {error}", "yellow")
                    continue
                state.console.line("   " + in_short(result))
                values = _values(result)
                if request.name == "memorising" and share < 1:
                    values["searched"] = share
                    state.console.line(
                        f"   looked for in {share:.1%} of the training text: in the shards that "
                        "are read now, as the cache does not hold all"
                    )
                state.metrics.write(f"suite_{result.suite}", step, **seen, **values)
    finally:
        model.train(was_training)


def _values(result: SuiteResult) -> dict[str, float | None]:
    """Return the numbers of a suite and their standard errors by name, as a record has them."""
    values: dict[str, float | None] = {}
    for measure in result.measures:
        values[measure.name] = measure.value
        values[f"{measure.name} ±"] = measure.error
    return values


def _words_seen(state: TrainState) -> int:
    """Estimate how many words were trained on, from a sample of the text, which is read once."""
    if state.words_per_token is None:
        train = state.dataset.train
        sample = train.read(0, min(len(train), SAMPLE_TOKENS))
        text = state.tokenizer.decode(sample.tolist(), skip_special=True)
        state.words_per_token = len(WORD.findall(text)) / len(sample)
    return round(state.progress.tokens * state.words_per_token)


def _uncompiled(state: TrainState) -> AbstractContextManager[object]:
    """Within, compiled layers run as they are written: each new length would recompile them."""
    compiled = any(layer._compiled_call_impl is not None for layer in state.model.model.layers)
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
