"""The runs before a run: a chain of teachers, each of which the next one learns from."""

from __future__ import annotations

from jielong.config.replay import replay_share
from jielong.config.settings import Config
from jielong.runtime.run_folder import RunFolder
from jielong.training.datasets import dataset_folder, replay_folder
from jielong.training.inputs import tokenizer_folder
from jielong.training.starting_point import StartingPoint


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
        values = {
            "out_dir": str(folder.teachers / str(number)),
            "data_path": (str(dataset_folder(config, folder)),),
            "validation_path": (),
            "validation_fraction": None,
            "tokenizer": str(tokenizer_folder(config, folder, start)),
            "seed": config.training.seed + number,
            "minutes": None,
            "auto_size": False,
            "teachers": None,
            "teacher": found[-1].run.out_dir if found else config.training.teacher,
            "tracker": (),
        }
        if config.data.replay is not None:
            share = replay_share(config.data.replay)
            values["replay"] = f"{replay_folder(config, folder)}={share}"
        found.append(config.with_values(**values))
    return found


def taught(config: Config, folder: RunFolder) -> Config:
    """Return the settings of a run with the last of its teachers as its teacher."""
    if not config.training.teachers:
        return config
    return config.with_values(teacher=str(folder.teachers / str(config.training.teachers)))
