"""Runs suites on a model, and on the model before it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from jielong.config.suites import SuiteRequest
from jielong.evaluation.suites import (
    cloze,
    copying,
    grammar,
    memorising,
    tasks,
    text,
    writing,
)
from jielong.evaluation.suites.results import Ratio, SuiteResult
from jielong.evaluation.suites.subject import Options, Subject

MODULES = {
    "text": text,
    "grammar": grammar,
    "cloze": cloze,
    "copying": copying,
    "writing": writing,
    "memorising": memorising,
    "tasks": tasks,
}
ON_TOKENS = ("cloze", "copying", "writing", "memorising")  # items are tokens of one tokenizer


def run_suites(
    subject: Subject,
    requests: Sequence[SuiteRequest],
    options: Options,
    before: Subject | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[SuiteResult, ...]:
    """Run suites in the order asked for.

    Args:
        before: the model to compare with; it answers the same items.
        log: called with what is measured next.

    Raises:
        DataError: a suite needs text that is not there, or cannot use the text that is.
    """
    found = []
    for number, request in enumerate(requests, start=1):
        log(f"measuring {request.name} ({number} of {len(requests)}) …")
        found.append(_run(subject, request, options, before))
    return tuple(found)


def _run(
    subject: Subject, request: SuiteRequest, options: Options, before: Subject | None
) -> SuiteResult:
    started = time.perf_counter()
    module = MODULES[request.name]
    options = dataclasses.replace(options, path=request.path)
    found, notes = module.measure(subject, options)
    earlier: dict[str, Ratio] = {}
    if before is not None and request.name in ON_TOKENS and not _same_tokens(subject, before):
        notes = [*notes, f"{before.name} has another tokenizer, so it is not compared here"]
    elif before is not None:
        # the items are those of the newer model's run; its n-grams have answered already
        other = dataclasses.replace(
            before, train=subject.train, held_out=subject.held_out, compared=False
        )
        earlier = {ratio.name: ratio for ratio in module.measure(other, options)[0]}
    return SuiteResult(
        suite=request.name,
        error_over=module.ERROR_OVER,
        measures=tuple(ratio.measure(earlier.get(ratio.name)) for ratio in found),
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _same_tokens(a: Subject, b: Subject) -> bool:
    return a.tokenizer.fingerprint == b.tokenizer.fingerprint
