"""What suites find: numbers with their standard errors, beside what they are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jielong.evaluation.suites.chinese import CHINESE
from jielong.present.blocks import Block, Note, Page, Table
from jielong.present.finished import shown_by
from jielong.present.result import Result
from jielong.present.words import Say

PERCENT = ("accuracy", "share")  # units that are shown in per cent


@dataclass(frozen=True)
class Ratio:
    """A measure as a suite returns it: the ratio of two sums over the same items.

    An accuracy is a sum of 0 and 1 divided by a count; bits/byte are bits divided by bytes.

    Attributes:
        name: what is measured.
        unit: accuracy, share, bits/byte, bits or tokens.
        tops: (n,) numerators of each item by who made them: `model`, and what it is compared with.
        bottom: (n,) denominators of each item.
        clusters: (n,) which items belong together, such as passages of one document; none: each
            item stands by itself.
        strata: (n,) the set of each item, where the sets are given and not drawn.
        fixed: numbers to compare with that need no items, such as the accuracy by chance.
    """

    name: str
    unit: str
    tops: Mapping[str, np.ndarray]
    bottom: np.ndarray
    clusters: np.ndarray | None = None
    strata: np.ndarray | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)

    def measure(self, before: Ratio | None = None) -> Measure:
        """Return value, standard error and comparisons.

        Args:
            before: the same items by another model.
        """
        total, model = float(self.bottom.sum()), self.tops["model"]
        beside = {
            name: float(top.sum()) / total for name, top in self.tops.items() if name != "model"
        }
        value = float(model.sum()) / total
        influence = self._influence()
        earlier, change_error = None, None
        if before is not None:
            earlier = float(before.tops["model"].sum() / before.bottom.sum())
            change_error = self._error(influence - before._influence())
        return Measure(
            name=self.name,
            unit=self.unit,
            value=value,
            error=self._error(influence),
            items=len(self.bottom),
            beside={**self.fixed, **beside},
            before=earlier,
            change=None if earlier is None else value - earlier,
            change_error=change_error,
        )

    def _influence(self) -> np.ndarray:
        """Return what each item adds to the error of the ratio, (n,) (Cochran 1977, section 2.11).

        It is the item's deviation from the ratio, of its stratum where there are strata.
        """
        strata = np.zeros(len(self.bottom), np.int64) if self.strata is None else self.strata
        top, bottom = self.tops["model"], self.bottom
        sums = np.bincount(strata, weights=top), np.bincount(strata, weights=bottom)
        return (top - (sums[0] / np.maximum(sums[1], 1e-300))[strata] * bottom) / bottom.sum()

    def _error(self, influence: np.ndarray) -> float | None:
        """Return the standard error: clusters are drawn whole, strata are given.

        None where a stratum has not two clusters.
        """
        strata = np.zeros(len(influence), np.int64) if self.strata is None else self.strata
        clusters = np.arange(len(influence)) if self.clusters is None else self.clusters
        squares = 0.0
        for stratum in np.unique(strata):
            of = strata == stratum
            _, which = np.unique(clusters[of], return_inverse=True)
            sums = np.bincount(which, weights=influence[of])
            if len(sums) < 2:
                return None
            squares += float(np.square(sums).sum()) * len(sums) / (len(sums) - 1)
        return math.sqrt(squares)


@dataclass(frozen=True)
class Measure:
    """One number about a model.

    Attributes:
        name: what is measured.
        unit: accuracy, share (both from 0 to 1), bits/byte, bits or tokens.
        value: the number.
        error: its standard error; none where there is a single item.
        items: how many items it is of.
        beside: what the number is compared with, by name, such as chance, unigram and bigram.
        before: the number of the model before, if it was measured.
        change: value − before.
        change_error: standard error of the change. Both models have answered the same items, so it
            is smaller than the errors of the two numbers.
    """

    name: str
    unit: str
    value: float
    error: float | None
    items: int
    beside: Mapping[str, float]
    before: float | None = None
    change: float | None = None
    change_error: float | None = None


@dataclass(frozen=True)
class SuiteResult:
    """What one suite found.

    Attributes:
        suite: its name.
        error_over: what the standard errors are over: pairs, documents, texts and so on.
        measures: its numbers.
        notes: what to know when reading them.
        seconds: wall-clock time.
    """

    suite: str
    error_over: str
    measures: tuple[Measure, ...]
    notes: tuple[str, ...]
    seconds: float

    def __getitem__(self, name: str) -> Measure:
        """Return the measure of this name.

        Raises:
            KeyError: there is none.
        """
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)


@dataclass(frozen=True)
class SuiteReport(Result):
    """What several suites found about a model.

    Attributes:
        model: the model's folder.
        step, tokens: how far it was trained, if known: updates and tokens.
        before: the folder of the model before, if it was measured too.
        suites: the results, in the order asked for.
    """

    model: str
    step: int | None
    tokens: int | None
    before: str | None
    suites: tuple[SuiteResult, ...]

    def __getitem__(self, suite: str) -> SuiteResult:
        """Return the result of a suite by name.

        Raises:
            KeyError: it was not asked for.
        """
        for result in self.suites:
            if result.suite == suite:
                return result
        raise KeyError(suite)

    def page(self, say: Say) -> Page:
        """Return a table for each suite, with its notes."""

        def worded(text: str) -> str:
            return shown_by(say, text, CHINESE)

        blocks: list[Block] = []
        if self.tokens is not None:
            blocks.append(Note(worded(f"{self.tokens:,} tokens seen")))
        if self.before is not None:
            blocks.append(Note(worded(f"before: {self.before}")))
        for result in self.suites:
            heading, found = rows(result)
            words = [[worded(name), worded(unit), *numbers] for name, unit, *numbers in found]
            columns = ["", *map(worded, heading[1:])]
            blocks.append(Table(columns, words, worded(result.suite), left=2))
            blocks += [Note(worded(note), "dim") for note in all_notes(result)]
        return Page(self.model, blocks)


def rows(result: SuiteResult) -> tuple[list[str], list[list[str]]]:
    """Return the heading and the rows of a suite's table, as texts."""
    names = list(dict.fromkeys(name for m in result.measures for name in m.beside))
    names.sort(key=lambda name: name != "chance")
    compared = any(m.before is not None for m in result.measures)
    heading = [result.suite, "", "value", *names, *(["before", "change"] if compared else []), "n"]
    found = []
    for m in result.measures:
        beside = [shown(m.beside[n], m.unit) if n in m.beside else "" for n in names]
        earlier = []
        if compared:
            earlier = [
                "" if m.before is None else shown(m.before, m.unit),
                "" if m.change is None else shown(m.change, m.unit, m.change_error, sign=True),
            ]
        value = shown(m.value, m.unit, m.error)
        found.append([m.name, m.unit, value, *beside, *earlier, f"{m.items:,}"])
    return heading, found


def shown(value: float, unit: str, error: float | None = None, sign: bool = False) -> str:
    """Format a number of a unit with its standard error: accuracies and shares in per cent."""
    scale, digits, suffix = 1.0, 3, ""
    if unit in PERCENT:
        scale, digits, suffix = 100.0, 1, " %"
    elif unit == "tokens":
        digits = 1
    number = f"{value * scale:{'+' if sign else ''}.{digits}f}"
    if error is not None:
        number += f" ± {error * scale:.{digits}f}"
    return number + suffix


def in_short(result: SuiteResult) -> str:
    """Say the first two numbers of a suite in one line."""
    parts = [result.suite]
    for m in result.measures[:2]:
        text = f"{m.name} {shown(m.value, m.unit, m.error)}"
        text += "" if m.unit in PERCENT else f" {m.unit}"
        if "chance" in m.beside:
            text += f" (chance {shown(m.beside['chance'], m.unit)})"
        parts.append(text)
    return " · ".join(parts)


def all_notes(result: SuiteResult) -> list[str]:
    """Return what to say below a suite's table."""
    return [f"± is the standard error over {result.error_over}", *result.notes]
