"""`jielong tokenizer`: train a byte-level BPE tokenizer on a text."""

from __future__ import annotations

import argparse
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

DATA_FIELDS = ("mixture", *TEXT_FIELDS, "allow_loss", "tokenizer_sample_bytes")


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("tokenizer", help="train a byte-level BPE tokenizer")
    add_fields(p, ["data_path", *DATA_FIELDS, "vocab_size"])
    add_out_dir(p)
    add_engine(p)
    add_language(p)
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import train_tokenizer
    from jielong.training.run_tokenizer import about_tokenizer

    config = load_config(**field_values(arguments))
    settings = {name: getattr(config.data, name) for name in DATA_FIELDS}
    size, out = config.model.vocab_size, arguments.out_dir
    engine = arguments.engine, arguments.ray_address
    path = config.data.data_path or None
    warn, tell = teller(arguments.lang), teller(arguments.lang, on_errors=False)
    tokenizer = train_tokenizer(path, out, warn, *engine, vocab_size=size, **settings)
    tell(about_tokenizer(tokenizer, size, Path(out)))
    return 0
