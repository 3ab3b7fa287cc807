"""`jielong pretrain`: train a model from text, with every stage that is missing."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jielong.cli.options import (
    Commands,
    add_engine,
    add_fields,
    add_language,
    add_settings_from,
    field_values,
)
from jielong.cli.terminal import print_row
from jielong.config.aliases import BATCH_ALIASES
from jielong.config.fields import parse_bool
from jielong.config.load import load_config, with_default_budget
from jielong.config.settings import FIELDS, Config
from jielong.errors import ConfigError
from jielong.present.words import Say, sayer

if TYPE_CHECKING:
    from jielong.training.result import RunResult

FINAL_SAMPLE_TOKENS = 96


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser(
        "pretrain",
        help="train a model, with every stage that is missing; resumes",
        usage="jielong pretrain [--preset NAME] [--config FILE] --data-path TEXT [settings]",
    )
    add_settings_from(p)
    p.add_argument("--use-wandb", nargs="?", const="true", metavar="BOOL", help="--tracker wandb")
    p.add_argument("--override", action="store_true", help="resume with changed settings")
    p.add_argument("--verify", action="store_true", help="check the SHA-256 of the whole dataset")
    p.add_argument(
        "--json", action="store_true", help="print nothing but one JSON object, at the end"
    )
    add_language(p)
    add_engine(p)
    p.add_argument(
        "--ray-workers", type=int, default=1, metavar="N", help="processes on Ray that train"
    )
    add_fields(p, [*FIELDS, *BATCH_ALIASES])
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import pretrain

    values = field_values(arguments)
    if arguments.use_wandb is not None:
        try:
            values["tracker"] = "wandb" if parse_bool(arguments.use_wandb) else "none"
        except ValueError:
            raise ConfigError(f"use_wandb={arguments.use_wandb!r}: use true or false") from None
    values = with_default_budget(values, arguments.preset, arguments.config)
    config = load_config(arguments.preset, arguments.config, **values)
    result = pretrain(
        config,
        arguments.override,
        arguments.json,
        arguments.verify,
        arguments.lang,
        arguments.engine,
        arguments.ray_address,
        arguments.ray_workers,
    )
    if result.signal:
        return 128 + result.signal
    if int(os.environ.get("RANK", "0")):
        return 0  # rank 0 prints the result
    if arguments.json:
        print(json.dumps(_as_json(result)))
        return 0
    _continue_prompts(result.checkpoint, config)
    _print_end(result, sayer(arguments.lang))
    return 0


def _print_end(result: RunResult, say: Say) -> None:
    """Print where the model is, how good it is, and what to do with it."""
    print_row(say("run"), str(result.folder))
    step = int(result.checkpoint.name.removeprefix("step-"))
    which = (
        "" if step == result.step else say(" (the best; the last is of step {n})", n=result.step)
    )
    print_row(say("checkpoint"), f"{result.checkpoint}{which}")
    if (report := result.folder / "report.html").is_file():
        print_row(say("report"), str(report))
    if result.validation:
        from jielong.observe.console import perplexity, with_error

        v = result.validation
        for label, found in ((say("held-out"), v), (say("older text"), v.get("replay"))):
            if found:
                values = {"p": perplexity(found), "bits": with_error(found), "loss": found["loss"]}
                sentence = say("loss {loss:.4f} · perplexity {p} · {bits} bits per byte", **values)
                print_row(label, sentence)
    for name, of in result.sources.items():
        from jielong.observe.console import with_error

        measured = of["bits_per_byte"] is not None
        bits = say("{bits} bits per byte", bits=with_error(of)) if measured else say("not held out")
        sizes = say("{n:,} tokens, {e:.2g} epochs", n=of["tokens"], e=of["epochs"])
        print_row(f"  {name}", f"{sizes} · {bits}")
    folder = shlex.quote(str(result.folder))
    print(say("next steps"))
    for command, what in (
        (f'generate {folder} --prompt "…"', say("continue a text")),
        (f"generate {folder}", say("continue lines that you type")),
        (f"evaluate {folder} --data-path FILE", say("measure loss on another text")),
    ):
        width = len(f"evaluate {folder} --data-path FILE")
        print(f"  jielong {command:{width}}  {what}")


def _as_json(result: RunResult) -> dict[str, Any]:
    """What a program wants to know of a run: `seconds` are of this start, the rest of the run."""
    likelihood = result.validation or {}
    older = likelihood.get("replay")
    names = ("loss", "perplexity", "bits_per_byte", "bits_per_byte_error")
    return {
        "run": str(result.folder),
        "checkpoint": str(result.checkpoint),
        "step": result.step,
        "total_steps": result.total_steps,
        **{name: likelihood.get(name) for name in names},
        **({"replay": {name: older.get(name) for name in names}} if older else {}),
        **({"sources": result.sources} if result.sources else {}),
        "seconds": round(result.seconds, 3),
        "tokens": result.tokens,
        "parameters": result.parameters,
        "choices": result.plan,
    }


def _continue_prompts(checkpoint: Path, config: Config) -> None:
    """Print the trained model's continuations of `sample_prompts`."""
    from jielong.api import TextGenerator, load
    from jielong.config.sampling import Sampling

    if not config.run.sample_prompts:
        return
    generator = TextGenerator(*load(checkpoint, config.training.device))
    sampling = Sampling(seed=config.training.seed)
    for prompt in config.run.sample_prompts:
        print(f"\n── {prompt}", end="")
        for piece in generator.stream(prompt, FINAL_SAMPLE_TOKENS, sampling):
            print(piece, end="", flush=True)
        print()
    print()
