"""`jielong clean`: drop what is not worth learning from a text."""

from __future__ import annotations

import argparse
import json

from jielong.cli.options import (
    TEXT_FIELDS,
    Commands,
    add_engine,
    add_fields,
    add_language,
    add_out_dir,
    field_values,
)
from jielong.cli.show import lines_in
from jielong.config.cleaning import FIELDS, FILTERS, make_cleaning
from jielong.config.load import load_config

DATA_FIELDS = ("data_path", *TEXT_FIELDS, "strict", "allow_loss")


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    filters = "\n".join(f"  {name:<14} {text}" for name, text in FILTERS.items())
    p = commands.add_parser(
        "clean",
        help="drop duplicates and other text that is not worth learning",
        description="Drop what is not worth learning from a text: into a new folder, with all that "
        f"was dropped.\n\nfilters, in the order in which they run:\n{filters}",
    )
    add_fields(p, DATA_FIELDS)
    add_fields(p, list(FIELDS), FIELDS)
    p.add_argument(
        "--tokenizer",
        dest="field tokenizer",
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="folder of a tokenizer, which counts --min-tokens and --max-tokens, and whose chat "
        "template makes texts of conversations",
    )
    add_out_dir(p)
    add_engine(p)
    add_language(p)
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    values = field_values(arguments)
    cleaning = {name: values.pop(name) for name in list(values) if name in FIELDS}
    make_cleaning(**cleaning)  # mistakes are told before anything heavy is imported
    data = load_config(**values).data
    from jielong.cleaning.chinese import CHINESE, EXAMPLES
    from jielong.observe.chinese import CHINESE as OF_RUNS

    word = lines_in(arguments.lang, OF_RUNS | CHINESE)
    example = lines_in(arguments.lang, EXAMPLES)

    from jielong.api import clean

    report = clean(
        data.data_path,
        arguments.out_dir,
        (lambda line: None) if arguments.json else (lambda line: print(word(line), flush=True)),
        arguments.engine,
        arguments.ray_address,
        **{name: getattr(data, name) for name in (*DATA_FIELDS[1:], "tokenizer")},
        **cleaning,
    )
    print(
        json.dumps(report.to_json()) if arguments.json else "\n".join(report.lines(word, example))
    )
    return 0
