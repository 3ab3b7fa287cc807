"""What a run starts from, and whether model, tokenizer and text fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jielong.checkpoint.checkpoint import (
    checkpoints,
    find_model_folder,
    latest_valid_checkpoint,
)
from jielong.checkpoint.folder import model_type_of, read_model_config
from jielong.checkpoint.manifest import problem_found_by
from jielong.config.settings import Config
from jielong.data.shards import Dataset
from jielong.errors import ConfigError
from jielong.runtime.distributed import World
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.agreement import disagreement_when_saved
from jielong.tokenization.tokenizer import Tokenizer

COMPARED_TEXTS, COMPARED_TOKENS = 128, 256  # how much text is given to transformers' tokenizer


@dataclass(frozen=True)
class StartingPoint:
    """What a run goes on from: found and verified once, for all ranks."""

    checkpoint: Path | None = None  # the run's own newest sound one
    init_from: Path | None = None  # the model folder of `training.init_from`, for a new run
    problems: tuple[str, ...] = ()  # newer checkpoints passed over, and why

    @property
    def model_folder(self) -> Path | None:
        """Where architecture, tokenizer and weights come from, if not from the settings."""
        return self.checkpoint or self.init_from


def find_starting_point(
    config: Config, run: RunFolder, world: World | None = None
) -> StartingPoint:
    """The newest sound checkpoint of the run, or the model folder that the settings name.

    Args:
        world: the ranks of the run, which all call it and share the work; None: this process alone.

    Raises:
        CheckpointError: there is no model in `training.init_from`, or it is damaged; or a rank does
            not see the checkpoints that rank 0 sees.
    """
    world = world or World()
    newest, problems = _newest_sound(run.checkpoints, world)
    start = StartingPoint(newest, problems=tuple(problems))
    if config.training.init_from is None or newest is not None:
        return start
    with world.barrier_after():
        if world.is_main:
            init_from = find_model_folder(config.training.init_from)
            start = dataclasses.replace(start, init_from=init_from)
    return world.all_gather(start)[0]


def _newest_sound(folder: Path, world: World) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint, and why newer ones were skipped; each rank reads its share."""
    if world.world_size == 1:
        return latest_valid_checkpoint(folder)
    problems = list[str]()
    names = [path.name for path in reversed(checkpoints(folder))]
    for name in world.all_gather(names)[0]:
        if (problem := problem_found_by(world, folder / name)) is None:
            return folder / name, problems
        problems.append(problem)
    return None, problems


def with_architecture(config: Config, tokenizer: Tokenizer, start: StartingPoint) -> Config:
    """The config with what follows from the tokenizer, the window and `init_from` filled in.

    Raises:
        ConfigError: the model in `init_from` has no place for the tokenizer or the window.
    """
    context = config.model.max_position_embeddings or config.data.max_seq_len
    model = dataclasses.replace(
        config.model, vocab_size=tokenizer.vocab_size, max_position_embeddings=context
    )
    if config.training.init_from is not None and start.model_folder is not None:
        model = read_model_config(start.model_folder)
        if model.vocab_size < tokenizer.vocab_size:
            raise ConfigError(
                f"training.init_from={config.training.init_from} has a vocabulary of "
                f"{model.vocab_size}, the tokenizer {tokenizer.vocab_size}: use its own tokenizer"
            )
    return dataclasses.replace(config, model=model).validated()


def check_init_from(
    config: Config, tokenizer: Tokenizer, start: StartingPoint, log: Callable[[str], None]
) -> None:
    """Check, before any text is read, that a new run can start from the model of `init_from`.

    Args:
        start: with the folder of that model.

    Raises:
        CheckpointError: the model is of an unsupported kind.
        ConfigError: it has no place for the tokenizer or the window.
    """
    assert start.init_from is not None
    with_architecture(config, tokenizer, start)
    own = start.init_from / "tokenizer.json"
    if own.is_file() and Tokenizer.load(own).fingerprint != tokenizer.fingerprint:
        log(
            f"the tokenizer is not the one of {config.training.init_from}: the same id is another "
            "text, so its embeddings are learnt anew; leave --tokenizer out to use its own"
        )


def compare_with_transformers(
    config: Config, tokenizer: Tokenizer, dataset: Dataset, log: Callable[[str], None]
) -> None:
    """Say so where transformers, given a checkpoint, would split text otherwise than this run.

    A tokenizer of our own kind is left out, since transformers takes seconds to import.
    """
    if tokenizer.is_our_kind:
        return
    stream = dataset.train
    begins = [int(i) for i in stream.documents[:COMPARED_TEXTS]]
    rows = [stream.read(i, min(i + COMPARED_TOKENS, len(stream))) for i in begins]
    texts = [tokenizer.decode(row.tolist(), skip_special=True) for row in rows]
    model_type = model_type_of(config.model)
    if differs := disagreement_when_saved(tokenizer, model_type, texts):
        log(f"AutoTokenizer will not give this run's ids: {differs}")
