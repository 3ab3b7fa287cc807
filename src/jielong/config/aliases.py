"""Other names of our settings, as flags: those of MiniMind's scripts, and `--data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jielong.config.fields import FieldSpec, option
from jielong.errors import ConfigError

# flag names of MiniMind's scripts, and a short one
ALIASES = {
    "warmup_iters": "warmup_steps",
    "wandb_project": "tracker_project",
    "data": "mixture",
}
# two more of its flags, which together set global_batch_size and micro_batch_size
BATCH_ALIASES = {
    name: FieldSpec("training", name, int, True, None, option(None, text, low=1).metadata)
    for name, text in {
        "batch_size": "Windows in a micro-batch: with accumulation_steps sets global_batch_size.",
        "accumulation_steps": "Micro-batches in an update: multiplies batch_size.",
    }.items()
}


def with_global_batch_size(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `batch_size` and `accumulation_steps` by the global and micro-batch size.

    The objective does not depend on how a global batch is split. So the two only determine the
    size of an update, and the memory that a forward and backward pass needs.

    Raises:
        ConfigError: they are given together with `global_batch_size`, or `accumulation_steps` is
            given without `batch_size`.
    """
    rest = {name: value for name, value in values.items() if name not in BATCH_ALIASES}
    given = {name: spec.parse(values.get(name)) for name, spec in BATCH_ALIASES.items()}
    for name, spec in BATCH_ALIASES.items():
        spec.check(given[name])
    size, count = given["batch_size"], given["accumulation_steps"] or 1
    if size is None and count == 1:
        return rest
    if rest.get("global_batch_size") is not None:
        raise ConfigError(
            "training.global_batch_size and batch_size or accumulation_steps both set the batch: "
            "give one"
        )
    if size is None:
        raise ConfigError(
            f"accumulation_steps={count} needs batch_size, the windows in a micro-batch; or set "
            "global_batch_size, and micro_batch_size for less memory"
        )
    rest["global_batch_size"] = size * count
    if count > 1 and rest.get("micro_batch_size") is None:
        rest["micro_batch_size"] = size
    return rest
