"""`jielong prepare`: turn text into a dataset of tokens."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

from jielong.cli.options import (
    TEXT_FIELDS,
    Commands,
    add_engine,
    add_fields,
    add_language,
    add_out_dir,
    field_values,
)
from jielong.cli.show import teller
from jielong.config.load import load_config
from jielong.config.settings import Config
from jielong.errors import ConfigError

DATA_FIELDS = (
    *("data_path", *TEXT_FIELDS, "strict", "allow_loss"),
    *("validation_fraction", "validation_path"),
)
FURTHER_FIELDS = ("bos_token", "eos_token", "max_seq_len")


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("prepare", help="turn text into a dataset of tokens")
    add_fields(p, [*DATA_FIELDS, "mixture", "tokenizer", *FURTHER_FIELDS])
    add_out_dir(p)
    add_engine(p)
    add_language(p)
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import prepare

    config = load_config(**field_values(arguments))
    data = config.data
    if data.tokenizer is None:
        raise ConfigError(
            "data.tokenizer is missing: give --tokenizer DIR, or train one with `jielong tokenizer`"
        )
    tell = teller(arguments.lang, on_errors=False)
    if data.mixture:
        return _run_mixture(config, arguments, tell)
    settings = {name: getattr(data, name) for name in (*DATA_FIELDS[1:], *FURTHER_FIELDS)}
    report = prepare(
        data.data_path,
        data.tokenizer,
        arguments.out_dir,
        tell,
        arguments.engine,
        arguments.ray_address,
        **settings,
    )
    for line in report.lines():
        tell(line)
    return 0


def _run_mixture(config: Config, arguments: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Prepare a dataset of each text, and say how a run takes them."""
    from jielong.api import prepare_mixture
    from jielong.training.staged import prepared_settings

    data = config.data
    names = {*DATA_FIELDS[1:], *FURTHER_FIELDS} - {"validation_path"}
    settings = {name: getattr(data, name) for name in names}
    assert data.tokenizer is not None
    out_dir, engine = arguments.out_dir, (arguments.engine, arguments.ray_address)
    reports = prepare_mixture(data.mixture, data.tokenizer, out_dir, tell, *engine, **settings)
    for name, report in reports.items():
        for line in (f"{name}:", *report.lines()):
            tell(line)
    flags = [f"--data {shlex.quote(text)}" for text in prepared_settings(config, Path(out_dir))]
    tell(f"to train on them: jielong pretrain {' '.join(flags)}")
    return 0
