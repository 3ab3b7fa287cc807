"""`jielong tokenizer`: train a byte-level BPE tokenizer on a text."""

from __future__ import annotations

import argparse
from pathlib import Path

from jielong.cli.options import Commands, add_fields, add_out_dir, field_values
from jielong.config.load import load_config
from jielong.errors import ConfigError


def add(commands: Commands) -> None:
    """Adds the command and its flags."""
    p = commands.add_parser("tokenizer", help="train a byte-level BPE tokenizer")
    names = ["data_path", "text_field", "vocab_size", "tokenizer_sample_bytes"]
    add_fields(p, names)
    add_out_dir(p)
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from jielong.training.inputs import about_tokenizer, train_on_corpus

    config, out = load_config(**field_values(arguments)), Path(arguments.out_dir)
    if (out / "tokenizer.json").exists():
        raise ConfigError(f"{out} already holds a tokenizer: choose another --out-dir")
    tokenizer = train_on_corpus(config)
    tokenizer.save(out)
    print(about_tokenizer(tokenizer, config.model.vocab_size, out))
    return 0
