"""The prepared datasets of a run: of its text, and of the older text that it replays."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from jielong.checkpoint.checkpoint import checkpoints
from jielong.config.replay import ReplaySetting
from jielong.config.settings import Config, same_setting
from jielong.data.prepare.prepare import prepare
from jielong.data.prepare.provenance import SETTINGS, Sources, changes_since, provenance
from jielong.data.shards import Dataset, open_dataset, verify_dataset
from jielong.errors import DataError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer


def ensure_datasets(
    config: Config,
    tokenizer: Tokenizer,
    run: RunFolder,
    sources: Callable[[], Sources],
    older: Callable[[], Sources],
    log: Callable[[str], None],
    verify: bool,
) -> None:
    """Prepare the run's datasets where they are missing, and check their files.

    Args:
        sources: finds those of the new text.
        older: finds those of the older text, if the run replays any.
        log: takes a line for the user.
        verify: compare every file with its SHA-256, however unchanged it seems.

    Raises:
        DataError: a text or a dataset is missing, damaged or unusable.
    """
    known = _trained_on(config, run, ("data_path", "validation_path"))
    ensure_dataset(config, tokenizer, run.data, known, sources, log)
    verify_dataset(dataset_folder(config, run), again=verify)
    if config.data.replay is not None:
        known = _trained_on(config, run, ("replay",))
        with naming_replay(config):
            ensure_dataset(older_text(config), tokenizer, run.replay, known, older, log)
            verify_dataset(replay_folder(config, run), again=verify)


def ensure_dataset(
    config: Config,
    tokenizer: Tokenizer,
    folder: Path,
    known: bool,
    sources: Callable[[], Sources],
    log: Callable[[str], None],
) -> None:
    """Prepare the dataset where it is missing; one given as `data_path` is used as it is.

    Args:
        folder: the run's own dataset.
        known: the run has trained on it, and goes on with its tokens wherever the text is by now.
    """
    if known and (folder / "dataset.json").is_file():
        log(f"dataset {folder} (the run's own)")
        if changes := _changes_of_text(config, tokenizer, folder, sources):
            log(
                f"the text has changed since: {'; '.join(changes[:3])}. This run goes on with the "
                "tokens it has; to train on the text as it is now, start another run from this "
                f"one's model: --init-from {config.run.out_dir} and a new --out-dir"
            )
    elif prepared_folder(config) is None:
        report = prepare(config, tokenizer, folder, log, sources())
        for line in report.lines()[: 1 if report.reused else None]:
            log(line)


def _changes_of_text(
    config: Config, tokenizer: Tokenizer, folder: Path, sources: Callable[[], Sources]
) -> list[str]:
    """List how the text of a run has changed; nothing if it is gone, or was standard input."""
    try:
        wanted = provenance(config, tokenizer, sources())
    except DataError:
        return []  # the run does not need it any more
    return changes_since(folder, wanted)


def find_older_text(config: Config, new: Callable[[], Sources]) -> Sources:
    """Find the sources of the text that `data.replay` names; none where it is prepared already.

    Args:
        new: finds the sources of the new text.

    Raises:
        DataError: the older text is missing, of an unknown kind, or has a file of the new text
            or of the held-out one.
    """
    older = older_text(config)
    if prepared_folder(older):
        return Sources([], [])
    with naming_replay(config):
        found = Sources.of(older.data)
        beside = Sources([], []) if prepared_folder(config) else new()
        for name, others in (("data_path", beside.data), ("validation_path", beside.validation)):
            files = {source.path.resolve() for source in others if source.path}
            if shared := [s.name for s in found.data if s.path and s.path.resolve() in files]:
                raise DataError(f"{shared[0]} is a file of data.{name} too: leave it out of one")
    return found


@contextlib.contextmanager
def naming_replay(config: Config) -> Iterator[None]:
    """Within, an error of the older text's data says which setting names it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"data.replay={config.data.replay!r}: {error}") from None


def older_text(config: Config) -> Config:
    """The config with the text of `data.replay` in place of the new text."""
    assert config.data.replay is not None
    path = ReplaySetting.parse(config.data.replay).path
    data = dataclasses.replace(config.data, data_path=(path,), validation_path=(), replay=None)
    return dataclasses.replace(config, data=data)


def _trained_on(config: Config, run: RunFolder, names: tuple[str, ...]) -> bool:
    """Whether the run has trained on the text that the config names in the settings `names`."""
    if not checkpoints(run.checkpoints) or not run.config_file.exists():
        return False
    now, then = config.data, run.stored_config().data
    names = (*SETTINGS, "tokenizer", "bos_token", "eos_token", *names)
    return all(same_setting(name, getattr(then, name), getattr(now, name)) for name in names)


def load_dataset(config: Config, tokenizer: Tokenizer, run: RunFolder) -> Dataset:
    """The prepared dataset of a run, its files of the right sizes.

    Raises:
        DataError: it is damaged, or was made with another tokenizer.
    """
    return _open(dataset_folder(config, run), tokenizer, config)


def load_replay(config: Config, tokenizer: Tokenizer, run: RunFolder) -> Dataset | None:
    """The prepared dataset of the older text, if the run replays any.

    Raises:
        DataError: as `load_dataset`.
    """
    if config.data.replay is None:
        return None
    with naming_replay(config):
        return _open(replay_folder(config, run), tokenizer, config)


def _open(folder: Path, tokenizer: Tokenizer, config: Config) -> Dataset:
    dataset = open_dataset(folder, verify=False)
    named = config.data.bos_token or config.data.eos_token
    if named and dataset.manifest["special_ids"] != tokenizer.special_ids:
        raise DataError(
            f"{folder}: made with the special tokens {dataset.manifest['special_ids']}, not with "
            f"{tokenizer.special_ids}: leave --bos-token and --eos-token out, or prepare it again"
        )
    if dataset.manifest["tokenizer_fingerprint"] != tokenizer.fingerprint:
        raise DataError(
            f"{folder}: made with the tokenizer {dataset.manifest['tokenizer_fingerprint'][:12]}, "
            f"not with {tokenizer.fingerprint[:12]}: give its own --tokenizer, or prepare it again"
        )
    return dataset


def dataset_folder(config: Config, run: RunFolder) -> Path:
    """Where the tokens of a run are: a prepared dataset that was given, or the run's own."""
    return prepared_folder(config) or run.data


def replay_folder(config: Config, run: RunFolder) -> Path:
    """Where the tokens of the older text are: as `dataset_folder` of the new one's."""
    return prepared_folder(older_text(config)) or run.replay


def prepared_folder(config: Config) -> Path | None:
    """The folder of a dataset that `jielong prepare` made, if that is what `data_path` names."""
    paths = config.data.data_path
    if len(paths) == 1 and (Path(paths[0]) / "dataset.json").is_file():
        return Path(paths[0])
    return None
