"""`jielong clean`: drop what is not worth learning from a text."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from jielong.cli.options import (
    Commands,
    add_engine,
    add_fields,
    add_language,
    add_out_dir,
    field_values,
)
from jielong.config.cleaning import FIELDS, FILTERS, make_cleaning
from jielong.config.load import load_config

DATA_FIELDS = (
    *("data_path", "text_field", "text_template", "text_suffixes", "text_unit"),
    *("document_separator", "html_text", "encoding", "strict", "allow_loss"),
)


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
    word, example = _words(arguments.lang)

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


def _words(language: str) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Return what says a finished sentence in the language, and what says an example.

    Raises:
        ConfigError: there is no such language.
    """
    from jielong.present.words import language_of

    if language_of(language) == "en":
        return str, str

    from jielong.cleaning.chinese import CHINESE, EXAMPLES
    from jielong.observe.chinese import CHINESE as OF_RUNS
    from jielong.present.finished import in_chinese

    table = OF_RUNS | CHINESE
    return (lambda text: in_chinese(text, table)), (lambda text: in_chinese(text, EXAMPLES))
