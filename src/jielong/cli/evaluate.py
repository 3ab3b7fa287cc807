"""`jielong evaluate`: measure a trained model's loss on a text."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from jielong.cli.options import Commands, add_fields, add_model, field_values, find_model
from jielong.config.load import load_config
from jielong.errors import ConfigError


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("evaluate", help="loss, perplexity and bits per byte of a text")
    add_model(p)
    names = ("data_path", "text_field", "text_suffixes", "text_unit", "document_separator")
    add_fields(p, [*names, "encoding", "allow_loss"])
    p.add_argument("--batch-tokens", type=int, default=8192, help="tokens per forward pass")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import evaluate, load
    from jielong.data.prepare.files_read import describe_files
    from jielong.data.sources.documents import DocumentTexts, find_sources
    from jielong.data.sources.file_kinds import further_suffixes
    from jielong.data.sources.text_units import Splitting
    from jielong.observe.console import perplexity, with_error

    config = load_config(**field_values(arguments))
    if not config.data.data_path:
        raise ConfigError("data.data_path is missing: give --data-path FILE")
    if arguments.batch_tokens < 1:
        raise ConfigError(f"batch_tokens={arguments.batch_tokens} is below 1")
    model, tokenizer = load(find_model(arguments), arguments.device)
    data = config.data
    suffixes = further_suffixes(data.text_suffixes)
    sources, not_read = find_sources(data.data_path, suffixes=suffixes)
    texts = DocumentTexts(sources, data.text_field, data.encoding, Splitting.of(data))
    with texts.checked(data.allow_loss):
        result = evaluate(model, tokenizer, texts, arguments.batch_tokens)
    about_files = describe_files(sources, not_read, for_training=False)
    for line in (*(line.removeprefix("  ") for line in about_files), *texts.losses.lines()):
        print(line, file=sys.stderr)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))
        return 0
    print(f"loss            {result.loss:.4f} nats per token")
    print(f"perplexity      {perplexity(dataclasses.asdict(result))}")
    print(f"bits per byte   {with_error(dataclasses.asdict(result))}")
    print(f"text            {result.tokens:,} tokens, {result.bytes:,} bytes")
    print(f"speed           {result.tokens / max(result.seconds, 1e-9):,.0f} tokens/s")
    return 0
