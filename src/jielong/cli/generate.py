"""`jielong generate`: continue texts with a trained model."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jielong.cli.options import Commands, add_model, find_model
from jielong.config.sampling import Sampling
from jielong.errors import ConfigError, DataError
from jielong.present.words import Say, sayer

SAMPLING_HELP = {  # the defaults come from Sampling
    "temperature": "divides the logits; 0 takes the likeliest token each time (greedy)",
    "top_p": "sample from the likeliest tokens up to this total probability; 1 is off",
    "top_k": "sample from the k likeliest tokens; 0 is off",
    "min_p": "drop tokens below this fraction of the top probability; 0 is off",
    "repetition_penalty": "values above 1 discourage repetition; 1 is off",
}


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("generate", help="continue a text")
    add_model(p)
    p.add_argument("--prompt", help="text to continue; default: read lines from standard input")
    p.add_argument(
        "--max-new-tokens", type=int, default=256, help="most tokens to write (default 256)"
    )
    p.add_argument("--num-samples", type=int, default=1, help="continuations (default 1)")
    for name, text in SAMPLING_HELP.items():
        default = getattr(Sampling, name)
        flag = "--" + name.replace("_", "-")
        p.add_argument(flag, type=type(default), help=f"{text} (default {default})")
    p.add_argument(
        "--stop",
        nargs="+",
        action="extend",
        default=[],
        metavar="TEXT",
        help=r"stop before the first of these texts; \n stands for a line break",
    )
    p.add_argument("--seed", type=int, help="the same seed gives the same text (default: another)")
    p.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import TextGenerator, load
    from jielong.config.sampling import make_sampling

    say = sayer(arguments.lang)
    if arguments.num_samples < 1:
        raise ConfigError(f"num_samples={arguments.num_samples} is below 1")
    given = {n: getattr(arguments, n) for n in SAMPLING_HELP if getattr(arguments, n) is not None}
    stop = [text.replace(r"\n", "\n").replace(r"\t", "\t") for text in arguments.stop]
    model = find_model(arguments)
    generator = TextGenerator(*load(model, arguments.device))
    if flags := _flags_of_transformers(model, given):
        about = say(
            "{file} is not used here; transformers samples by it as with {flags}",
            file=model / "generation_config.json",
            flags=flags,
        )
        print(about, file=sys.stderr)
    for prompt in _prompts(arguments.prompt, say):
        for sample in range(arguments.num_samples):
            seed = None if arguments.seed is None else arguments.seed + sample
            sampling = make_sampling(seed=seed, **given)
            pieces = generator.stream(prompt, arguments.max_new_tokens, sampling, stop=stop)
            print(prompt, end="", flush=True)
            for piece in pieces:
                print(piece, end="", flush=True)
            print("\n" if arguments.num_samples > 1 else "", flush=True)
    return 0


def _flags_of_transformers(model: Path, given: Mapping[str, Any]) -> str:
    """Return the flags, apart from those given, that sample as a model's own settings say."""
    try:
        stored = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
        values = {name: stored[name] for name in SAMPLING_HELP if stored.get(name) is not None}
        if not stored.get("do_sample"):
            names = ("temperature", "repetition_penalty")  # the others do nothing without drawing
            values = {n: v for n, v in values.items() if n in names} | {"temperature": 0}
        elif "top_k" not in values:
            values["top_k"] = 50  # what transformers takes then
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""  # a model may come without
    return " ".join(
        f"--{name.replace('_', '-')} {value}"
        for name, value in values.items()
        if name not in given and value != getattr(Sampling, name)
    )


def _prompts(prompt: str | None, say: Say) -> Iterator[str]:
    if prompt is not None:
        yield prompt
        return
    if not sys.stdin.isatty():
        try:
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is not UTF-8 text: {error}") from None
        return
    print(say("Type the beginning of a text. An empty line or Ctrl-D quits."))
    with contextlib.suppress(EOFError):
        while line := input("> "):
            yield line
