"""`jielong prepare`: turn text into a dataset of tokens."""

from __future__ import annotations

import argparse

from jielong.cli.options import Commands, add_engine, add_fields, add_out_dir, field_values
from jielong.config.load import load_config
from jielong.errors import ConfigError

DATA_FIELDS = (
    *("data_path", "text_field", "text_template", "text_suffixes", "text_unit"),
    *(
        "document_separator",
        "encoding",
        "strict",
        "allow_loss",
        "validation_fraction",
        "validation_path",
    ),
)
FURTHER_FIELDS = ("bos_token", "eos_token", "max_seq_len")


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("prepare", help="turn text into a dataset of tokens")
    add_fields(p, [*DATA_FIELDS, "tokenizer", *FURTHER_FIELDS])
    add_out_dir(p)
    add_engine(p)
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import prepare

    data = load_config(**field_values(arguments)).data
    if data.tokenizer is None:
        raise ConfigError(
            "data.tokenizer is missing: give --tokenizer DIR, or train one with `jielong tokenizer`"
        )
    settings = {name: getattr(data, name) for name in (*DATA_FIELDS[1:], *FURTHER_FIELDS)}
    report = prepare(
        data.data_path,
        data.tokenizer,
        arguments.out_dir,
        lambda line: print(line, flush=True),
        arguments.engine,
        arguments.ray_address,
        **settings,
    )
    print("\n".join(report.lines()))
    return 0
