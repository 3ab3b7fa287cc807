"""`jielong import` and `jielong export`: other formats, in and out."""

from __future__ import annotations

import argparse

from jielong.cli.options import Verbs, add_out_dir
from jielong.errors import ConfigError

EXPORT_DTYPES = {"hf": "bfloat16", "gguf": "f16", "minimind": "float16"}  # each with its default


def add(verbs: Verbs) -> None:
    """Adds both commands and their flags."""
    p = verbs.add_parser("import", help="make a model folder of a MiniMind .pth")
    p.add_argument("file", metavar="FILE.pth")
    p.add_argument("--tokenizer", required=True, metavar="DIR", help="its tokenizer folder")
    p.add_argument("--config", metavar="FILE.json", help="its settings, where shapes cannot tell")
    add_out_dir(p)
    p.set_defaults(command=import_model)

    p = verbs.add_parser("export", help="Hugging Face copy, GGUF, or MiniMind .pth of a model")
    p.add_argument("model", metavar="RUN_OR_CHECKPOINT")
    p.add_argument("--format", required=True, choices=tuple(EXPORT_DTYPES), help="what to write")
    p.add_argument("--dtype", help="hf: bfloat16, float16, float32; gguf: f16, f32, q8_0")
    p.add_argument("--license", help="hf: identifier for the model card, e.g. apache-2.0")
    p.add_argument("--push-to-hub", metavar="USER/NAME", help="hf: upload the folder there")
    add_out_dir(p)
    p.set_defaults(command=export_model)


def import_model(arguments: argparse.Namespace) -> int:
    from jielong.interop.minimind import import_minimind

    found = import_minimind(
        arguments.file, arguments.tokenizer, arguments.out_dir, arguments.config
    )
    print(f"{found.family} model: {arguments.out_dir}")
    for name, value in found.assumed.items():
        print(f"  assumed {name} = {value} (--config FILE.json says otherwise)")
    return 0


def export_model(arguments: argparse.Namespace) -> int:
    from jielong.checkpoint.checkpoint import find_model_folder, load_model
    from jielong.interop.gguf import export_gguf
    from jielong.interop.huggingface import export_hf
    from jielong.interop.minimind import export_minimind

    kind, out = arguments.format, arguments.out_dir
    dtype = arguments.dtype or EXPORT_DTYPES[kind]
    if kind != "hf" and (arguments.license or arguments.push_to_hub):
        raise ConfigError(f"--license and --push-to-hub go with --format hf, not {kind}")
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
