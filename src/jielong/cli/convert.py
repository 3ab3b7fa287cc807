"""`jielong import` and `jielong export`: convert models from and to other formats."""

from __future__ import annotations

import argparse

from jielong.cli.options import Commands, add_model, add_out_dir, find_model
from jielong.present.words import sayer

FORMATS = ("hf", "gguf", "minimind")


def add(commands: Commands) -> None:
    """Add both commands and their flags."""
    p = commands.add_parser("import", help="convert a MiniMind .pth to a model folder")
    p.add_argument("file", metavar="FILE.pth", help="a checkpoint of MiniMind")
    p.add_argument("--tokenizer", required=True, metavar="DIR", help="its tokenizer folder")
    p.add_argument(
        "--config", metavar="FILE.json", help="its settings that the weights do not show"
    )
    add_out_dir(p)
    p.set_defaults(command=import_model)

    p = commands.add_parser(
        "export", help="write a model as Hugging Face folder, GGUF or MiniMind .pth"
    )
    add_model(p)
    p.add_argument("--format", required=True, choices=FORMATS, help="output format")
    p.add_argument("--dtype", help="hf: bfloat16, float16, float32; gguf: f16, f32, q8_0")
    p.add_argument("--license", help="hf: license id for the model card, e.g. apache-2.0")
    p.add_argument("--push-to-hub", metavar="USER/NAME", help="hf: upload the folder to the Hub")
    add_out_dir(p)
    p.set_defaults(command=export_model)


def import_model(arguments: argparse.Namespace) -> int:
    """Run `jielong import`."""
    from jielong.api import import_minimind

    found = import_minimind(
        arguments.file, arguments.tokenizer, arguments.out_dir, arguments.config
    )
    say = sayer(arguments.lang)
    print(say("{family} model: {folder}", family=found.family, folder=arguments.out_dir))
    for name, value in found.assumed.items():
        assumed = f"{name} = {value}"
        print("  " + say("assumed {what} (change with --config FILE.json)", what=assumed))
    return 0


def export_model(arguments: argparse.Namespace) -> int:
    """Run `jielong export`."""
    from jielong.api import export

    a = arguments
    print(export(find_model(a), a.out_dir, a.format, a.dtype, a.license, a.push_to_hub))
    return 0
