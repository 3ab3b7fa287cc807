"""`jielong tokenizer`: train a byte-level BPE tokenizer on a text."""

from __future__ import annotations

import argparse
from pathlib import Path

from jielong.cli.options import Commands, add_fields, add_out_dir, field_values
from jielong.config.load import load_config


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("tokenizer", help="train a byte-level BPE tokenizer")
    names = ["data_path", "text_field", "vocab_size", "tokenizer_sample_bytes"]
    add_fields(p, names)
    add_out_dir(p)
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import train_tokenizer
    from jielong.training.inputs import about_tokenizer

    config = load_config(**field_values(arguments))
    settings = {
        name: getattr(config.data, name) for name in ("text_field", "tokenizer_sample_bytes")
    }
    size, out = config.model.vocab_size, arguments.out_dir
    tokenizer = train_tokenizer(config.data.data_path, out, vocab_size=size, **settings)
    print(about_tokenizer(tokenizer, size, Path(out)))
    return 0
