"""The runs before a run: a chain of teachers, each of which the next one learns from."""

from __future__ import annotations

from typing import Any

from jielong.config.mixture import MixtureSource, replay_share
from jielong.config.settings import Config
from jielong.runtime.run_folder import RunFolder
from jielong.training.run_tokenizer import tokenizer_folder
from jielong.training.starting_point import StartingPoint
from jielong.training.texts import REPLAY, texts_of


def teacher_runs(config: Config, folder: RunFolder, start: StartingPoint) -> list[Config]:
    """Return the settings of the runs that make the teachers of a run, each the next one's teacher.

    They lie in the run's folder, under `teachers`, and use its text and tokenizer as prepared. A
    run that has begun has had them.

    Args:
        config: of the run, with what `--minutes` chooses.
    """
    if start.checkpoint is not None:
        return []
    found: list[Config] = []
    for number in range(1, (config.training.teachers or 0) + 1):
        values: dict[str, Any] = {
            "out_dir": str(folder.teachers / str(number)),
            "validation_path": (),
            "validation_fraction": None,
            "tokenizer": str(tokenizer_folder(config, folder, start)),
            "seed": config.training.seed + number,
            "minutes": None,
            "keep_interval": None,
            "auto_size": False,
            "teachers": None,
            "teacher": found[-1].run.out_dir if found else config.training.teacher,
            "tracker": (),
        }
        places = {text.name: text.dataset_folder for text in texts_of(config, folder)}
        sources = map(MixtureSource.parse, config.data.mixture)
        values["mixture"] = tuple(source.elsewhere(places[source.name]) for source in sources)
        values["data_path"] = (str(places[""]),) if "" in places else ()
        if config.data.replay is not None:
            share = replay_share(config.data.replay)
            values["replay"] = f"{places[REPLAY]}={share}"
        found.append(config.with_values(**values))
    return found


def with_last_teacher(config: Config, folder: RunFolder) -> Config:
    """Return the settings of a run with the last of its teachers as its teacher."""
    if not config.training.teachers:
        return config
    return config.with_values(teacher=str(folder.teachers / str(config.training.teachers)))
