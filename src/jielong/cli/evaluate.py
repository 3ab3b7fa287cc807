"""`jielong evaluate`: the loss of a model on a text, or what it has learnt, by suites."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from jielong.cli.options import (
    TEXT_FIELDS,
    Commands,
    add_fields,
    add_model,
    field_values,
    find_model,
)
from jielong.cli.show import add_show, check_show, lines_in, show
from jielong.cli.terminal import print_row
from jielong.config.load import load_config
from jielong.config.suites import AUTO, SUITES
from jielong.errors import ConfigError
from jielong.present.words import sayer

LABEL_WIDTH = 16


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("evaluate", help="the loss on a text, or what a model has learnt")
    add_model(p)
    add_fields(p, ["data_path", *TEXT_FIELDS, "allow_loss"])
    suites = p.add_argument_group("suites")
    suites.add_argument(
        "--suite", nargs="+", metavar="NAME[=PATH]", help=f"what to measure: {', '.join(SUITES)}"
    )
    suites.add_argument(
        "--suite-path", metavar="PATH", help="texts of the suite that needs some: text or grammar"
    )
    suites.add_argument(
        "--against",
        default=AUTO,
        metavar="CHECKPOINT|RUN|none",
        help="model to compare with; default: the run's checkpoint before, if it was kept",
    )
    suites.add_argument(
        "--limit", type=int, default=500, help="most items of each set; 0 takes all; default 500"
    )
    suites.add_argument("--seed", type=int, default=1337, help="of what is drawn; default 1337")
    p.add_argument("--batch-tokens", type=int, default=8192, help="tokens per forward pass")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    add_show(p)
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.batch_tokens < 1:
        raise ConfigError(f"batch_tokens={arguments.batch_tokens} is below 1")
    check_show(arguments)  # measuring may take minutes
    return _by_suites(arguments) if arguments.suite else _of_text(arguments)


def _of_text(arguments: argparse.Namespace) -> int:
    """Measure the loss on a text."""
    from jielong.api import evaluate, load
    from jielong.data.prepare.files_read import describe_files
    from jielong.data.sources.documents import DocumentTexts, find_sources
    from jielong.data.sources.file_kinds import further_suffixes
    from jielong.data.sources.row_text import RowText
    from jielong.data.sources.text_units import Splitting
    from jielong.observe.chinese import CHINESE
    from jielong.observe.chinese_errors import ERRORS
    from jielong.observe.console import perplexity, with_error
    from jielong.tokenization.chat import Chat

    say = sayer(arguments.lang)
    config = load_config(**field_values(arguments))
    for name in ("suite_path", "html", "png"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name.replace('_', '-')} is for suites: give --suite NAME too")
    folder = find_model(arguments)
    if not config.data.data_path:
        raise ConfigError("data.data_path is missing: give --data-path FILE, or --suite NAME")
    model, tokenizer = load(folder, arguments.device)
    data = config.data
    suffixes = further_suffixes(data.text_suffixes)
    sources, not_read = find_sources(data.data_path, suffixes=suffixes)
    rows = RowText.of_settings(data, Chat(tokenizer))
    texts = DocumentTexts(sources, rows, data.encoding, Splitting.of(data))
    with texts.checked(data.allow_loss):
        result = evaluate(model, tokenizer, texts, arguments.batch_tokens)
    shown = lines_in(arguments.lang, CHINESE | ERRORS)
    about_files = map(shown, describe_files(sources, not_read, for_training=False))
    left_out = map(shown, texts.losses.lines())
    for line in (*(line.removeprefix("  ") for line in about_files), *left_out):
        print(line, file=sys.stderr)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))
        return 0
    values = dataclasses.asdict(result)
    speed = result.tokens / max(result.seconds, 1e-9)
    measured = (
        (say("loss"), say("{n:.4f} nats per token", n=result.loss)),
        (say("perplexity"), perplexity(values)),
        (say("bits per byte"), with_error(values)),
        (say("text"), say("{n:,} tokens, {bytes:,} bytes", n=result.tokens, bytes=result.bytes)),
        (say("speed"), say("{speed:,.0f} tokens/s", speed=speed)),
    )
    for label, value in measured:
        print_row(label, value, LABEL_WIDTH)
    return 0


def _by_suites(arguments: argparse.Namespace) -> int:
    """Measure what a model has learnt."""
    from jielong.api import evaluate_suites

    if given := sorted(field_values(arguments)):
        flag = given[0].replace("_", "-")
        raise ConfigError(f"--{flag} is for one text, not for suites: leave it out, or --suite")
    if arguments.limit < 0:
        raise ConfigError(f"limit={arguments.limit} is below 0; 0 takes all items")
    report = evaluate_suites(
        find_model(arguments),
        arguments.suite,
        arguments.suite_path,
        arguments.against,
        limit=arguments.limit,
        device=arguments.device,
        batch_tokens=arguments.batch_tokens,
        seed=arguments.seed,
        log=_say_on_terminal,
    )
    return show(report, arguments)


def _say_on_terminal(line: str) -> None:
    """Show progress to who waits for it, and leave files and pipes alone."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)
