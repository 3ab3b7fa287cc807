"""Suites on a checkpoint, with the tokens of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jielong.checkpoint.checkpoint import (
    checkpoints,
    find_model_folder,
    load_model,
    load_training_state,
    step_of,
)
from jielong.config.settings import Config
from jielong.config.suites import AUTO, NONE, suite_requests
from jielong.errors import CheckpointError, DataError, JielongError
from jielong.evaluation.suites import grammar, tasks
from jielong.evaluation.suites.results import SuiteReport
from jielong.evaluation.suites.run import run_suites
from jielong.evaluation.suites.subject import Options, Subject
from jielong.runtime.device import choose_device
from jielong.runtime.run_folder import RunFolder
from jielong.training.datasets import load_dataset


def evaluate_suites(
    run_or_checkpoint: str | Path,
    suites: Sequence[str],
    suite_path: str | Path | None = None,
    against: str | Path = AUTO,
    limit: int = 500,
    device: str = "auto",
    checkpoint: str = "best",
    batch_tokens: int = 8192,
    seed: int = 1337,
    log: Callable[[str], None] = lambda line: None,
) -> SuiteReport:
    """What a model has learnt: numbers that mean something at 1 to 100M parameters.

    Args:
        run_or_checkpoint: a run's folder, a checkpoint, or any model folder.
        suites: text, grammar, cloze, copying, writing, memorising, tasks; `NAME=PATH` where the
            texts are not the run's own.
        suite_path: the path of the one suite that takes a path and has none.
        against: the model to compare with, as `run_or_checkpoint`; `auto` is the run's checkpoint
            before this one, if it has been kept; `none` compares with no other model.
        limit: most items of each set; 0 takes all.
        device: auto, cpu, cuda or mps.
        checkpoint: of a run: best (by held-out loss), last or a step.
        batch_tokens: most tokens in a forward pass, padding included.
        seed: of everything that is drawn.
        log: called with what is measured next.

    Returns:
        `report[suite][measure]` has a value, its standard error and what it is compared with;
        `report.to_json()` is all of it. Notebooks show it as tables.

    Raises:
        CheckpointError: there is no model.
        ConfigError: a suite is unknown, or it is unclear which one the path is for.
        DataError: a suite needs text that is not there, or cannot use the text that is.
    """
    requests = suite_requests(suites, None if suite_path is None else str(suite_path))
    folder = find_model_folder(run_or_checkpoint, checkpoint)
    subject = open_subject(folder, device, batch_tokens)
    earlier = _before(folder, str(against))
    before = None if earlier is None else open_subject(earlier, device, batch_tokens)
    step, tokens = _progress(folder)
    options = Options(limit=limit, seed=seed)
    return SuiteReport(
        model=str(folder),
        step=step,
        tokens=tokens,
        before=None if earlier is None else str(earlier),
        suites=run_suites(subject, requests, options, before, log),
    )


def open_subject(folder: Path, device: str, batch_tokens: int) -> Subject:
    """Load a model folder and, if it is a checkpoint of a run, open the run's tokens.

    Raises:
        CheckpointError: the model is damaged.
        ConfigError: the device is not there.
    """
    model, tokenizer = load_model(folder)
    model = model.to(choose_device(device))
    subject = Subject(str(folder), model, tokenizer, batch_tokens=batch_tokens)
    run = RunFolder(folder.parent.parent)
    if folder.parent.name != run.checkpoints.name or not run.config_file.is_file():
        return subject
    try:
        dataset = load_dataset(run.stored_config(), tokenizer, run)
    except JielongError as error:  # some suites need no text; the others say why it is not there
        subject.missing = str(error)
    else:
        subject.train, subject.held_out = dataset.train, dataset.validation
    return subject


def check_suites(config: Config) -> None:
    """Read the files of the suites of a run, so that a mistake in them is told before training.

    Raises:
        DataError: a file is missing, or has a bad line.
    """
    for request in suite_requests(config.run.eval_suite):
        if request.name == "grammar":
            grammar.read_sets(Options(path=request.path))
        elif request.name == "tasks":
            for place in tasks.TASKS.values():
                tasks.read_task(place, Options(path=request.path))
        elif request.path is not None and not Path(request.path).exists():
            raise DataError(
                f"run.eval_suite={request.name}: {request.path}: no such file or folder"
            )


def _before(folder: Path, against: str) -> Path | None:
    """Return the model folder to compare with."""
    if against == NONE:
        return None
    if against != AUTO:
        return find_model_folder(against)
    earlier = [c for c in checkpoints(folder.parent) if c.is_dir()]
    if folder not in earlier:
        return None
    place = earlier.index(folder)
    return earlier[place - 1] if place and step_of(earlier[place - 1]) else None


def _progress(folder: Path) -> tuple[int | None, int | None]:
    """Return the step and the tokens that a checkpoint was saved after, if it says so."""
    try:
        state = load_training_state(folder)
        return state.step, int(state.values["progress"]["tokens"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None, None
