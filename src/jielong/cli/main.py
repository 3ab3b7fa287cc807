"""The command line: what was asked for, and how errors are told."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from jielong.cli import convert, evaluate, generate, prepare, pretrain, tokenizer
from jielong.cli.options import (
    Parser,
    ShowVersion,
    plain_flag,
)
from jielong.config.fields import nearest
from jielong.errors import ConfigError, JielongError

FINAL_SAMPLE_TOKENS = 96
EXPORT_DTYPES = {"hf": "bfloat16", "gguf": "f16", "minimind": "float16"}  # each with its default
DATA_FIELDS = ("data_path", "text_field", "strict", "validation_fraction", "validation_path")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 2 for a user's mistake, 128 + n for signal n."""
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = parse(words)
        return int(arguments.command(arguments))
    except JielongError as error:
        return _failed(words, str(error))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `jielong … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder that may not be written
        place = f"{error.filename}: " if error.filename else ""
        return _failed(words, f"{place}{error.strerror or error}")


def _failed(words: Sequence[str], message: str) -> int:
    """Says what went wrong in one line, after Python's traceback if it is asked for."""
    if "--debug" in words:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return 2


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, `-` and `_` alike in the names of flags."""
    plain = [plain_flag(word) for word in argv]
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(plain)
    for word in unknown:
        if word.startswith("--"):
            known = sorted(arguments.flags)
            raise ConfigError(f"unknown flag {word}{nearest(word, known)}; see --help")
        raise ConfigError(f"unexpected argument {word!r}; quote texts that hold spaces")
    return arguments


def build_parser() -> Parser:
    parser = Parser(prog="jielong", description="Pretrain a small language model on your own text.")
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show it and exit")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in (pretrain, tokenizer, prepare, generate, evaluate, convert):
        command.add(verbs)
    for verb in verbs.choices.values():
        verb.add_argument("--debug", action="store_true", help="show Python's traceback of errors")
        verb.set_defaults(flags=[f for action in verb._actions for f in action.option_strings])
    return parser
