"""`jielong inspect`: look at what goes into a model, what it is and what it predicts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jielong.cli.options import (
    Commands,
    Parser,
    add_fields,
    add_model,
    add_settings_from,
    field_values,
    find_model,
)
from jielong.cli.show import add_show, show, teller
from jielong.config.aliases import BATCH_ALIASES
from jielong.config.load import load_config
from jielong.config.model import MODEL_FIELDS
from jielong.config.settings import FIELDS
from jielong.errors import ConfigError

if TYPE_CHECKING:
    from jielong.config.model import ModelConfig
    from jielong.model.transformer import Transformer
    from jielong.tokenization.tokenizer import Tokenizer

Run = Callable[[argparse.Namespace], int]


def add(commands: Commands) -> None:
    """Add the command and its subcommands."""
    p = commands.add_parser("inspect", help="see data, tokenizer, model, schedule and predictions")
    below = p.add_subparsers(required=True, metavar="WHAT", parser_class=Parser)
    _add_before(below)
    _add_after(below)
    for one in below.choices.values():
        add_show(one)


def _add(below: Commands, name: str, help: str, run: Run, usage: str) -> Parser:
    p: Parser = below.add_parser(name, help=help, usage=f"jielong inspect {name} {usage}")
    p.set_defaults(command=run)
    return p


def _add_before(below: Commands) -> None:
    usage = "RUN | --data-path TEXT [settings]"
    p = _add(below, "data", "a batch as the model sees it: X above Y", data, usage)
    p.add_argument("--step", type=int, default=0, help="whose batch, from 0 (default 0)")
    p.add_argument("--rows", type=int, default=2, help="rows of the batch to show (default 2)")
    p.add_argument(
        "--positions", type=int, default=64, help="positions of a row to show (default 64)"
    )
    p.add_argument(
        "--clean", action="store_true", help="without the noise put into a text that is read often"
    )
    _add_subject(p)

    usage = 'RUN_OR_TOKENIZER "text" [--beside RUN_OR_TOKENIZER …]'
    p = _add(below, "tokenizer", "a text in tokens: pieces, ids, bytes", tokenizer, usage)
    p.add_argument("tokenizer", metavar="RUN_OR_TOKENIZER", help="folder with a tokenizer.json")
    _add_text(p)
    p.add_argument(
        "--beside", nargs="+", action="extend", default=[], metavar="DIR", help="other tokenizers"
    )

    usage = "RUN_OR_CHECKPOINT | [--preset NAME] [settings]"
    p = _add(below, "model", "every part: shape, parameters, FLOPs", model, usage)
    p.add_argument("--rows", type=int, default=8, help="windows of the batch (default 8)")
    p.add_argument("subject", nargs="?", metavar="RUN_OR_CHECKPOINT", help="instead of settings")
    _add_settings(p, [*MODEL_FIELDS, "max_seq_len"])

    usage = "RUN | --data-path TEXT [settings]"
    help = "learning rate, batch size and weight decay over the run"
    _add_subject(_add(below, "schedule", help, schedule, usage))


def _add_after(below: Commands) -> None:
    text = 'RUN_OR_CHECKPOINT "text"'
    help = "at each place of a text: the true token, its rank, the likeliest"
    p = _add(below, "predict", help, predict, text)
    p.add_argument("--guesses", type=int, default=5, help="likeliest tokens to show (default 5)")
    p = _add(below, "layers", "what each layer would predict (logit lens)", layers, text)
    p = _add(below, "attention", "where each head looks", attention, text)
    p.add_argument("--layer", type=int, help="one layer, from 1 (default all)")
    p.add_argument("--head", type=int, help="one head of each layer, from 1 (default all)")
    _add(below, "experts", "which expert each token goes to (mixtures)", experts, text)
    text = 'RUN_OR_CHECKPOINT "token"'
    p = _add(below, "embeddings", "the nearest tokens of a token", embeddings, text)
    p.add_argument("--nearest", type=int, default=10, help="how many to show (default 10)")
    for name in ("predict", "layers", "attention", "experts", "embeddings"):
        add_model(below.choices[name])
        _add_text(below.choices[name])
        below.choices[name].add_argument(
            "--device", default="auto", help="auto (default), cpu, cuda or mps"
        )


def _add_subject(p: Parser) -> None:
    p.add_argument("subject", nargs="?", metavar="RUN", help="folder of a run")
    _add_settings(p, [*FIELDS, *BATCH_ALIASES])


def _add_settings(p: Parser, names: list[str]) -> None:
    add_settings_from(p)
    add_fields(p, names)


def _add_text(p: Parser) -> None:
    p.add_argument("text", metavar="TEXT", help="in quotes; - reads standard input")


def _text(arguments: argparse.Namespace) -> str:
    if arguments.text != "-":
        return str(arguments.text)
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is not UTF-8 (byte {error.start})") from None


def _subject(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the run and what is changed of it, or the settings alone."""
    values = field_values(arguments)
    if arguments.subject is None:
        return values | {"preset": arguments.preset, "file": arguments.config}, {}
    if arguments.preset or arguments.config:
        raise ConfigError("give a run, or --preset and --config for one that is not started yet")
    return arguments.subject, values


def _at_least(arguments: argparse.Namespace, **least: int) -> None:
    for name, value in least.items():
        if getattr(arguments, name) < value:
            raise ConfigError(f"{name}={getattr(arguments, name)} is below its least value {value}")


def data(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect data`."""
    from jielong.api import inspect_data

    a = arguments
    _at_least(a, rows=1, positions=1)
    what, changes = _subject(a)
    tell = teller(a.lang)
    result = inspect_data(what, a.step, a.rows, a.positions, a.clean, tell, **changes)
    return show(result, a)


def tokenizer(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect tokenizer`."""
    from jielong.api import inspect_tokenizer

    tokenizers = {name: _tokenizer_at(name) for name in (arguments.tokenizer, *arguments.beside)}
    return show(inspect_tokenizer(tokenizers, _text(arguments)), arguments)


def _tokenizer_at(name: str) -> Tokenizer:
    """Load the tokenizer of a folder; of a run that was given one, its checkpoint's copy."""
    from jielong.checkpoint.checkpoint import find_model_folder
    from jielong.runtime.run_folder import RunFolder
    from jielong.tokenization.tokenizer import Tokenizer

    run = RunFolder(name)
    if run.config_file.is_file() and not (run.tokenizer / "tokenizer.json").is_file():
        return Tokenizer.load(find_model_folder(name))
    return Tokenizer.load(name)


def model(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect model`."""
    from jielong.api import inspect_model

    _at_least(arguments, rows=1)
    config, window = _architecture(arguments)
    return show(inspect_model(config, window, arguments.rows), arguments)


def _architecture(arguments: argparse.Namespace) -> tuple[ModelConfig, int]:
    """Return the architecture of a run or a checkpoint, or of settings, and its window."""
    from jielong.checkpoint.checkpoint import find_model_folder
    from jielong.checkpoint.folder import read_model_config
    from jielong.model.transformer import context_length
    from jielong.runtime.run_folder import RunFolder

    what, changes = _subject(arguments)
    if isinstance(what, dict):
        config = load_config(what.pop("preset"), what.pop("file"), **what)
        return config.model, config.data.max_seq_len
    if changes:
        raise ConfigError("the model of a run is as it is: leave the settings out, or the run")
    run = RunFolder(what)
    if run.config_file.exists() and not any(run.checkpoints.glob("step-*")):
        from jielong.insight.subject import opened

        with opened(what) as found:  # it has begun, and has no checkpoint yet
            return found.plan.model, found.config.data.max_seq_len
    found_model = read_model_config(find_model_folder(Path(what)))
    return found_model, context_length(found_model)


def schedule(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect schedule`."""
    from jielong.api import inspect_schedule

    what, changes = _subject(arguments)
    return show(inspect_schedule(what, teller(arguments.lang), **changes), arguments)


def _model_and_text(arguments: argparse.Namespace) -> tuple[Transformer, Tokenizer, str]:
    from jielong.api import load

    model, tokenizer = load(find_model(arguments), arguments.device)
    return model, tokenizer, _text(arguments)


def predict(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect predict`."""
    from jielong.api import inspect_predictions

    _at_least(arguments, guesses=1)
    found = inspect_predictions(*_model_and_text(arguments), guesses=arguments.guesses)
    return show(found, arguments)


def layers(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect layers`."""
    from jielong.api import inspect_layers

    return show(inspect_layers(*_model_and_text(arguments)), arguments)


def attention(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect attention`."""
    from jielong.api import inspect_attention

    a = arguments
    return show(inspect_attention(*_model_and_text(a), layer=a.layer, head=a.head), a)


def experts(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect experts`."""
    from jielong.api import inspect_experts

    return show(inspect_experts(*_model_and_text(arguments)), arguments)


def embeddings(arguments: argparse.Namespace) -> int:
    """Run `jielong inspect embeddings`."""
    from jielong.api import inspect_embeddings

    _at_least(arguments, nearest=1)
    found = inspect_embeddings(*_model_and_text(arguments), nearest=arguments.nearest)
    return show(found, arguments)
