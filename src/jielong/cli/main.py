"""The entry point of the command line: parses commands and reports errors."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from jielong.cli import (
    clean,
    convert,
    evaluate,
    generate,
    inspect,
    plan,
    prepare,
    pretrain,
    report,
    serve,
    tokenizer,
    ui,
)
from jielong.cli.options import (
    Commands,
    Parser,
    ShowVersion,
    add_language,
    plain_flag,
    unknown_flag,
)
from jielong.cli.terminal import as_utf8, replace_what_cannot_be_shown
from jielong.config.hints import nearest
from jielong.errors import AnotherRankError, ConfigError, JielongError
from jielong.present.words import LANGUAGES, language_of

_FLAG = re.compile("--lang(=.*)?")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, 2 for an error, 128 + n for signal n."""
    words = as_utf8(sys.argv[1:]) if argv is None else argv
    replace_what_cannot_be_shown()
    if not words:
        build_parser().print_help()
        return 2
    try:
        arguments = parse(words)
        language_of(arguments.lang)  # a mistake in it is told before any work
        return int(arguments.command(arguments))
    except AnotherRankError as error:  # which the other has told
        return _report_error(words, str(error)) if "--debug" in words else 2
    except JielongError as error:
        return _report_error(words, str(error))
    except KeyboardInterrupt:
        print("\n" + ("已中断" if _is_chinese(words) else "interrupted"), file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `jielong … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # e.g. a full disk or a read-only folder
        path = f"{error.filename}: " if error.filename else ""
        return _report_error(words, f"{path}{error.strerror or error}")


def _report_error(words: Sequence[str], message: str) -> int:
    """Print the error in one line, after Python's traceback with `--debug`."""
    if "--debug" in words:
        traceback.print_exc()
    print(_in_chinese(message) if _is_chinese(words) else f"error: {message}", file=sys.stderr)
    return 2


def _in_chinese(message: str) -> str:
    """Return an error in Chinese; what it says stays English where that is not a frequent one."""
    from jielong.observe.chinese import CHINESE
    from jielong.observe.chinese_errors import ERRORS
    from jielong.present.finished import in_chinese

    return f"错误：{in_chinese(message, CHINESE | ERRORS)}"


def _is_chinese(words: Sequence[str]) -> bool:
    """Whether Chinese is asked for, by words that perhaps could not be parsed."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    given = [word.partition("=")[2] or after for word, after in pairs if _FLAG.fullmatch(word)]
    known = given and given[-1] in LANGUAGES
    return language_of(given[-1] if known else "auto") == "zh"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; `-` and `_` are the same in flag names."""
    plain = [plain_flag(word) for word in argv]
    parser = build_parser()
    if plain and not plain[0].startswith("-"):
        _check_command(plain[0], parser)
    arguments, unknown = parser.parse_known_args(plain)
    for word in unknown:
        if word.startswith("-") and word.strip("-"):
            raise ConfigError(unknown_flag(word, arguments.flags))
        is_text = "--data-path" in arguments.flags and Path(word).exists()
        fix = f"name text with --data-path {word}" if is_text else "quote texts that contain spaces"
        raise ConfigError(f"unexpected argument {word!r}; {fix}")
    return arguments


def _check_command(word: str, parser: Parser) -> None:
    """Raise the error of a command that there is not, with the one that it may mean."""
    commands = next(a for a in parser._actions if isinstance(a, Commands)).choices
    if word not in commands:
        meant = [command for command in commands if len(word) > 2 and word in command]
        hint = f"; did you mean {meant[0]}?" if meant else nearest(word, commands)
        raise ConfigError(f"no command {word!r}{hint}; there are: {', '.join(commands)}")


def build_parser() -> Parser:
    """Build the parser of all commands."""
    parser = Parser(prog="jielong", description="Pretrain a small language model on your own text.")
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    modules = (pretrain, plan, clean, tokenizer, prepare, generate, serve, ui, evaluate, inspect)
    for module in (*modules, report, convert):
        module.add(commands)
    for command in _leaves(commands):
        if "--lang" not in command._option_string_actions:
            add_language(command)
        command.add_argument(
            "--debug", action="store_true", help="show Python's traceback on errors"
        )
        flags = [flag for action in command._actions for flag in action.option_strings]
        command.set_defaults(flags=flags)
    return parser


def _leaves(commands: Commands) -> Iterator[Parser]:
    """Yield the parsers of all commands; of one with subcommands, theirs."""
    for command in commands.choices.values():
        below = [a for a in command._actions if isinstance(a, Commands)]
        if below:
            yield from _leaves(below[0])
        else:
            yield command
