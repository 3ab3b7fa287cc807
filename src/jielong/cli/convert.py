"""`jielong import` and `jielong export`: convert models from and to other formats."""

from __future__ import annotations

import argparse

from jielong.cli.options import Commands, add_out_dir
from jielong.errors import ConfigError

EXPORT_DTYPES = {"hf": "bfloat16", "gguf": "f16", "minimind": "float16"}  # default of each format


def add(commands: Commands) -> None:
    """Adds both commands and their flags."""
    p = commands.add_parser("import", help="convert a MiniMind .pth to a model folder")
    p.add_argument("file", metavar="FILE.pth")
    p.add_argument("--tokenizer", required=True, metavar="DIR", help="its tokenizer folder")
    p.add_argument(
        "--config", metavar="FILE.json", help="its settings that the weights do not show"
    )
    add_out_dir(p)
    p.set_defaults(command=import_model)

    p = commands.add_parser(
        "export", help="write a model as Hugging Face folder, GGUF or MiniMind .pth"
    )
    p.add_argument("model", metavar="RUN_OR_CHECKPOINT")
    p.add_argument("--format", required=True, choices=tuple(EXPORT_DTYPES), help="output format")
    p.add_argument("--dtype", help="hf: bfloat16, float16, float32; gguf: f16, f32, q8_0")
    p.add_argument("--license", help="hf: license id for the model card, e.g. apache-2.0")
    p.add_argument("--push-to-hub", metavar="USER/NAME", help="hf: upload the folder to the Hub")
    add_out_dir(p)
    p.set_defaults(command=export_model)


def import_model(arguments: argparse.Namespace) -> int:
    """Runs `jielong import`."""
    from jielong.interop.minimind import import_minimind

    found = import_minimind(
        arguments.file, arguments.tokenizer, arguments.out_dir, arguments.config
    )
    print(f"{found.family} model: {arguments.out_dir}")
    for name, value in found.assumed.items():
        print(f"  assumed {name} = {value} (change with --config FILE.json)")
    return 0


def export_model(arguments: argparse.Namespace) -> int:
    """Runs `jielong export`."""
    from jielong.checkpoint.checkpoint import find_model_folder, load_model
    from jielong.interop.gguf import export_gguf
    from jielong.interop.huggingface import export_hf
    from jielong.interop.minimind import export_minimind

    kind, out = arguments.format, arguments.out_dir
    dtype = arguments.dtype or EXPORT_DTYPES[kind]
    if kind != "hf" and (arguments.license or arguments.push_to_hub):
        raise ConfigError(f"--license and --push-to-hub need --format hf, not {kind}")
    if kind == "minimind" and dtype != "float16":
        raise ConfigError(f"dtype={dtype}: MiniMind's files are float16")
    if kind == "hf":
        print(export_hf(arguments.model, out, dtype, arguments.license, arguments.push_to_hub))
        return 0
    model, tokenizer = load_model(find_model_folder(arguments.model))
    if kind == "gguf":
        print(export_gguf(model, tokenizer, out, dtype))
    else:
        print(export_minimind(model, tokenizer, out))
    return 0
