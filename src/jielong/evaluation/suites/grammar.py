"""Suite `grammar`: of two sentences that differ in one point of grammar, which is likelier?

Minimal pairs as in BLiMP (Warstadt et al. 2020) and ZhoBLiMP (Liu et al. 2024): JSONL files with
`sentence_good` and `sentence_bad`, one set a file, or such a corpus of the Hugging Face Hub.
A model knows the grammar if the good sentence has the higher probability.

A longer sentence is less likely whatever its grammar. Where the sentences of a pair differ in
length, their log-probabilities are therefore also compared divided by the square root of their
number of tokens (SLLN-LP with α = 0.5, Liu et al. 2024, arXiv:2411.06096).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jielong.errors import DataError
from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.scoring import Row
from jielong.evaluation.suites.subject import Options, Subject

ERROR_OVER = "pairs; of all sets together, within each set"
GOOD, BAD = "sentence_good", "sentence_bad"
BY_LENGTH = "÷ √length"
UNEVEN = 0.03  # mean difference in length, as a share of it, that is worth a note
SOURCE = (
    "give --suite-path a folder of JSONL files with sentence_good and sentence_bad, or "
    "hf://nyu-mll/blimp"
)


@dataclass(frozen=True)
class Pair:
    """A sentence, and the same with a fault."""

    good: str
    bad: str


def measure(subject: Subject, options: Options) -> tuple[list[Ratio], list[str]]:
    """Return the accuracy on all sets and on each, and notes.

    Raises:
        DataError: there is no path, or a line of a file is not a pair.
    """
    sets = read_sets(options)
    names = list(sets)
    pairs = [pair for name in names for pair in sets[name]]
    of = np.repeat(np.arange(len(names)), [len(sets[name]) for name in names])
    rows = [_row(subject, text) for pair in pairs for text in (pair.good, pair.bad)]
    lengths = np.array([len(row.ids) - row.first for row in rows], dtype=float)
    right, corrected = {}, {}
    for name, scorer in subject.scorers.items():
        nats = np.array([scored.nats.sum() for scored in scorer.score(rows)])
        right[name] = _good_is_likelier(nats)
        corrected[name] = _good_is_likelier(nats / np.sqrt(lengths))
    weights = 1 / np.bincount(of)[of]  # each set counts as much as any other
    chance = {"chance": 0.5}
    found = []
    for title, given, other in (
        ("all sets", right, corrected),
        (f"all sets, {BY_LENGTH}", corrected, None),
    ):
        tops = {name: values * weights for name, values in given.items()}
        if other is not None:
            tops[BY_LENGTH] = other["model"] * weights
        found.append(Ratio(title, "accuracy", tops, weights, strata=of, fixed=chance))
    for i, name in enumerate(names):
        tops = {who: values[of == i] for who, values in right.items()}
        tops[BY_LENGTH] = corrected["model"][of == i]
        found.append(Ratio(name, "accuracy", tops, np.ones(len(sets[name])), fixed=chance))
    return found, _notes(names, of, lengths)


def read_sets(options: Options) -> dict[str, list[Pair]]:
    """Read the pairs of each set, at most `limit` of each.

    Raises:
        DataError: there is no path, nothing at it, or a line of a file is not a pair.
    """
    if options.path is None:
        raise DataError(f"grammar needs minimal pairs: {SOURCE}")
    if options.path.startswith("hf://"):
        sets = _from_hub(options.path)
    else:
        path = Path(options.path)
        files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: no JSONL file in it; {SOURCE}")
        sets = {file.stem: list(_from_file(file)) for file in files}
    return {
        name: [pairs[i] for i in options.spread(len(pairs))]
        for name, pairs in sets.items()
        if pairs
    }


def _from_file(file: Path) -> Iterator[Pair]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _pair(line, f"{file}:{number}")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}; {SOURCE}") from None


def _pair(line: bytes, place: str) -> Pair:
    try:
        record = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{place}: not a line of JSON in UTF-8: {error}") from None
    return _checked(record, place)


def _checked(record: Any, place: str) -> Pair:
    if not isinstance(record, dict):
        raise DataError(f"{place}: not an object with {GOOD} and {BAD}")
    for name in (GOOD, BAD):
        text = record.get(name)
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{place}: {name} is missing, empty or not a text")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise DataError(f"{place}: {name} is not valid Unicode: a lone surrogate")
    if record[GOOD] == record[BAD]:
        raise DataError(f"{place}: {GOOD} and {BAD} are the same sentence")
    return Pair(record[GOOD], record[BAD])


def _from_hub(path: str) -> dict[str, list[Pair]]:
    """Read a corpus of the Hub; each of its configurations is a set."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{path} needs the datasets library: pip install 'jielong[hub]'") from None
    name = path.removeprefix("hf://")
    sets = {}
    try:
        for config in datasets.get_dataset_config_names(name):
            for split, table in datasets.load_dataset(name, config).items():
                title = config if split == "train" else f"{config}, {split}"
                sets[title] = [
                    _checked(record, f"{path}, {title}, row {row}")
                    for row, record in enumerate(table, start=1)
                ]
    except DataError:
        raise
    except Exception as error:  # the Hub, the network and the files each have errors of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read from the Hub: {reason}") from None
    return sets


def _row(subject: Subject, sentence: str) -> Row:
    ids = subject.document(sentence)
    return Row(ids, 1)  # without a bos token, the first token is given


def _good_is_likelier(nats: np.ndarray) -> np.ndarray:
    """Return 1 where the good sentence is likelier, ½ where both are equal: (pairs,)."""
    good, bad = nats[0::2], nats[1::2]
    return np.where(np.isclose(good, bad, rtol=1e-9, atol=0), 0.5, good < bad)


def _notes(names: list[str], of: np.ndarray, lengths: np.ndarray) -> list[str]:
    good, bad = lengths[0::2], lengths[1::2]
    means = np.bincount(of, weights=good + bad) / 2
    uneven = np.abs(np.bincount(of, weights=good - bad)) / means > UNEVEN
    if not uneven.any():
        return []
    return [
        f"in {uneven.sum()} of {len(names)} sets the good sentences are longer or shorter than the "
        f"bad ones by more than {UNEVEN:.0%}: there, read {BY_LENGTH}, which corrects for it"
    ]
