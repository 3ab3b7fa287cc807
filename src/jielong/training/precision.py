"""The precision of a run's forward pass, which it keeps wherever it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from jielong.config.load import load_toml
from jielong.config.settings import Config
from jielong.runtime.device import bfloat16_width, choose_dtype
from jielong.runtime.run_folder import RunFolder
from jielong.training.minutes import write_chosen


def settle_dtype(
    config: Config,
    width: int,
    folder: RunFolder,
    device: torch.device,
    begun: bool,
    log: Callable[[str], None],
) -> Config:
    """Choose what `--dtype auto` leaves open, once: `chosen.toml` keeps it, unless it is float32.

    Args:
        width: the model's hidden size.
        begun: whether the run has a checkpoint.
        log: takes a line for the user.

    Returns:
        The settings with the choice.
    """
    if config.training.dtype != "auto":
        return config
    file = folder.chosen_file
    chosen, on_cpu = load_toml(file) if file.exists() else {}, device.type == "cpu"
    kept = chosen.get("dtype", "float32" if begun and on_cpu else None)
    if kept is None:
        name = str(choose_dtype("auto", device, width)).removeprefix("torch.")
        if name != "float32":
            write_chosen(file, chosen | {"dtype": name})
    else:
        name = "float32" if on_cpu and kept == "float16" else kept
    if on_cpu and (why := _why(kept, width)):
        log(f"precision  {name}{why}")
    return config.with_values(dtype=name)


def _why(kept: str | None, width: int) -> str:
    """Say why a CPU trains in this precision; nothing where it could not be another one."""
    least = bfloat16_width()
    if kept == "float16":
        return ", not float16 as before: that needs a GPU"
    if kept == "bfloat16" and math.isinf(least):
        return ", as before; slow here, where the CPU has no instructions for it"
    if math.isinf(least):
        return ""
    if kept is not None:
        return ", as before"
    return (
        f": this CPU trains models in bfloat16 from a width of {least} on, where that is faster; "
        f"this one is {width} wide"
    )
