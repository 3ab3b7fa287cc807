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
    add_fields(p, ["data_path", "text_field", "text_unit", "document_separator"])
    p.add_argument("--batch-tokens", type=int, default=8192, help="tokens per forward pass")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import evaluate, load
    from jielong.data.sources.documents import DocumentTexts, expand_sources
    from jielong.data.sources.text_units import Splitting
    from jielong.observe.console import with_error

    config = load_config(**field_values(arguments))
    if not config.data.data_path:
        raise ConfigError("data.data_path is missing: give --data-path FILE")
    if arguments.batch_tokens < 1:
        raise ConfigError(f"batch_tokens={arguments.batch_tokens} is below 1")
    model, tokenizer = load(find_model(arguments), arguments.device)
    texts = DocumentTexts(
        expand_sources(config.data.data_path),
        config.data.text_field,
        splitting=Splitting.of(config.data),
    )
    with texts.naming_first_bad_line():
        result = evaluate(model, tokenizer, texts, arguments.batch_tokens)
    if texts.bad:
        print(f"{texts.bad} bad lines skipped", file=sys.stderr)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))
        return 0
    print(f"loss            {result.loss:.4f} nats per token")
    print(f"perplexity      {result.perplexity:.2f}")
    print(f"bits per byte   {with_error(dataclasses.asdict(result))}")
    print(f"text            {result.tokens:,} tokens, {result.bytes:,} bytes")
    print(f"speed           {result.tokens / max(result.seconds, 1e-9):,.0f} tokens/s")
    return 0
