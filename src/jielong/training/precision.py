"""The precision of a run's forward pass, which it keeps wherever it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from jielong.config.load import load_toml
from jielong.config.settings import Config
from jielong.runtime.device import bfloat16_width, choose_dtype
from jielong.runtime.run_folder import RunFolder
from jielong.training.minutes import CHOSEN, write_chosen


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
    file = folder.path / CHOSEN
    chosen = load_toml(file) if file.exists() else {}
    name = kept = chosen.get("dtype")
    if kept is None:
        begun_in_float32 = begun and device.type == "cpu"
        dtype = torch.float32 if begun_in_float32 else choose_dtype("auto", device, width)
        name = str(dtype).removeprefix("torch.")
        if name != "float32":
            write_chosen(file, chosen | {"dtype": name})
    elif device.type == "cpu":
        if kept == "float16":
            name, note = "float32", ", not float16 as before: that needs a GPU"
        elif kept == "bfloat16" and math.isinf(bfloat16_width()):
            note = ", as before; slow here, where the CPU has no instructions for it"
        else:
            note = ", as before"
        log(f"precision  {name}{note}")
    return config.with_values(dtype=name)
