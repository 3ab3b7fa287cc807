"""Builds command-line flags from the config fields, so that help and validation always agree."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jielong.config.aliases import ALIASES, BATCH_ALIASES
from jielong.config.fields import FieldSpec
from jielong.config.hints import hint
from jielong.config.load import preset_names
from jielong.config.settings import FIELDS
from jielong.errors import ConfigError
from jielong.present.words import sayer

# how files become texts, for the commands that read some
TEXT_FIELDS = (
    *("text_field", "text_template", "text_suffixes", "text_unit", "document_separator"),
    *("html_text", "encoding"),
)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError instead of exiting."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


class ShowVersion(argparse.Action):
    """Prints the version. Looks it up only on request, since that takes a tenth of a second."""

    def __call__(self, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"jielong {version('jielong')}")
        raise SystemExit(0)


Commands = argparse._SubParsersAction  # each command adds its parser here


def plain_flag(word: str) -> str:
    """Replace each `_` by `-` in a flag's name; return other words unchanged."""
    match = re.match(r"--[A-Za-z_][\w-]*", word)
    return match[0].replace("_", "-") + word[match.end() :] if match else word


def unknown_flag(word: str, flags: Sequence[str]) -> str:
    """Return what to tell of a flag that is not one of `flags`: which one it may mean."""
    name = word.split("=")[0]
    known = [flag.removeprefix("--").replace("-", "_") for flag in flags if flag != "--help"]
    told = hint(name.strip("-").replace("-", "_"), known)
    told = re.sub(r"(it is|did you mean) (\w+)", lambda m: f"{m[1]} {_flag(m[2])}", told)
    return f"unknown flag {name}{told}; see --help"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_out_dir(parser: Parser) -> None:
    """Add the required `--out-dir`, or `--out` for short."""
    parser.add_argument("--out-dir", "--out", required=True, metavar="DIR", help="folder to write")


def add_engine(parser: Parser) -> None:
    """Add `--engine` and `--ray-address`."""
    parser.add_argument(
        "--engine", default="local", metavar="local|ray", help="where to do the work; default local"
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="Ray cluster, or auto for the one of this machine; default: Ray started here",
    )


def add_language(parser: argparse._ActionsContainer) -> None:
    """Add `--lang`."""
    parser.add_argument(
        "--lang", default="auto", metavar="en|zh|auto", help="language (auto: by the locale)"
    )


def add_settings_from(parser: argparse.ArgumentParser) -> None:
    """Add `--preset` and `--config`, which settings start from."""
    parser.add_argument("--preset", help=f"settings to start from: {', '.join(preset_names())}")
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file with settings; overrides the preset"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a trained model, and `--checkpoint`."""
    parser.add_argument(
        "model", metavar="RUN_OR_CHECKPOINT", help="a run's folder, a checkpoint or a model folder"
    )
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="best|last|STEP",
        help="which checkpoint of a run: the best by held-out loss (default), the last, or a step",
    )


def find_model(arguments: argparse.Namespace) -> Path:
    """Return the model folder that the arguments name; say so where a newer one is passed over."""
    from jielong.checkpoint.checkpoint import checkpoints, find_model_folder

    folder = find_model_folder(arguments.model, arguments.checkpoint)
    there = checkpoints(folder.parent)
    if arguments.checkpoint == "best" and folder in there[:-1] and folder != Path(arguments.model):
        say = sayer(arguments.lang)
        about = say(
            "{best}: the best on held-out text; the last is {last} (--checkpoint last)",
            best=folder.name,
            last=there[-1].name,
        )
        print(about, file=sys.stderr)
    return folder


def add_fields(
    parser: Parser, names: Sequence[str], fields: Mapping[str, FieldSpec] = FIELDS | BATCH_ALIASES
) -> None:
    """Add a flag for each of the config fields `names`, grouped by section."""
    sections = dict.fromkeys(fields[name].section for name in names)
    groups = {name: parser.add_argument_group(name) for name in sections}
    aliases = {name: alias for alias, name in ALIASES.items()}
    for name in names:
        spec = fields[name]
        flags = [_flag(n) for n in (name, aliases.get(name)) if n]
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "dest": f"field {name}"}
        if spec.type is bool:
            options |= {"nargs": "?", "const": "true", "metavar": "BOOL"}
        elif spec.type is tuple:
            action = "extend" if spec.metadata["repeated"] else "store"
            options |= {"nargs": "+", "metavar": "TEXT", "action": action}
        else:
            options |= {"metavar": spec.type_name.upper().replace(" OR ", "|")}
        groups[spec.section].add_argument(*flags, help=_help(spec), **options)


def _help(spec: FieldSpec) -> str:
    parts = [spec.metadata["help"].rstrip(".")]
    if spec.metadata["choices"]:
        parts.append("one of " + ", ".join(spec.metadata["choices"]))
    if spec.default not in (None, ()):
        default = str(spec.default).lower() if spec.type is bool else spec.default
        default = " ".join(default) if isinstance(default, tuple) else default
        parts.append(f"default {default}")
    elif "default" not in parts[0]:
        parts.append("default none")
    return "; ".join(parts).replace("%", "%%")


def field_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the config fields given on the command line, by name."""
    prefix = "field "
    return {
        name.removeprefix(prefix): value
        for name, value in vars(arguments).items()
        if name.startswith(prefix)
    }
