"""The command line: one verb, one function."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from jielong.config.fields import nearest, parse_bool
from jielong.config.load import load_config, preset_names
from jielong.config.settings import FIELDS, Config
from jielong.errors import ConfigError, DataError, JielongError
from jielong.flags import Parser, ShowVersion, add_fields, add_out_dir, field_values, plain_flag

FINAL_SAMPLE_TOKENS = 96
EXPORT_DTYPES = {"hf": "bfloat16", "gguf": "f16", "minimind": "float16"}  # each with its default
DATA_FIELDS = ("data_path", "text_field", "strict", "validation_fraction", "validation_path")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 2 for a user's mistake, 128 + n for signal n."""
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = parse(words)
        return int(arguments.command(arguments))
    except JielongError as error:
        return _failed(words, str(error))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `jielong … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder that may not be written
        place = f"{error.filename}: " if error.filename else ""
        return _failed(words, f"{place}{error.strerror or error}")


def _failed(words: Sequence[str], message: str) -> int:
    """Says what went wrong in one line, after Python's traceback if it is asked for."""
    if "--debug" in words:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return 2


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, `-` and `_` alike in the names of flags."""
    plain = [plain_flag(word) for word in argv]
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(plain)
    for word in unknown:
        if word.startswith("--"):
            known = sorted(arguments.flags)
            raise ConfigError(f"unknown flag {word}{nearest(word, known)}; see --help")
        raise ConfigError(f"unexpected argument {word!r}; quote texts that hold spaces")
    return arguments


def build_parser() -> Parser:
    parser = Parser(prog="jielong", description="Pretrain a small language model on your own text.")
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show it and exit")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    p = verbs.add_parser(
        "pretrain",
        help="train a model: all stages that are missing; resumes",
        usage="jielong pretrain [--preset NAME] [--config FILE] --data-path TEXT [settings]",
    )
    p.add_argument("--preset", help=f"settings to start from: {', '.join(preset_names())}")
    p.add_argument("--config", metavar="FILE", help="settings from a TOML file, over the preset's")
    p.add_argument("--use-wandb", nargs="?", const="true", metavar="BOOL", help="--tracker wandb")
    p.add_argument("--override", action="store_true", help="resume with settings that changed")
    p.add_argument("--verify", action="store_true", help="read the whole dataset to check it")
    add_fields(p, list(FIELDS))
    p.set_defaults(command=pretrain)

    p = verbs.add_parser("tokenizer", help="train a byte-level BPE tokenizer")
    names = ["data_path", "text_field", "vocab_size", "tokenizer_sample_bytes"]
    add_fields(p, names)
    add_out_dir(p)
    p.set_defaults(command=train_tokenizer)

    p = verbs.add_parser("prepare", help="turn text into a dataset of tokens")
    add_fields(p, [*DATA_FIELDS, "tokenizer", "max_seq_len"])
    add_out_dir(p)
    p.set_defaults(command=prepare)

    p = verbs.add_parser("generate", help="continue a text")
    p.add_argument("model", metavar="RUN_OR_CHECKPOINT")
    p.add_argument("--prompt", help="the text to continue; without it, lines are read")
    p.add_argument("--max-new-tokens", type=int, default=256, help="most tokens to write")
    p.add_argument("--num-samples", type=int, default=1, help="continuations to write")
    p.add_argument("--temperature", type=float, help="0 takes the likeliest token (default 0.8)")
    p.add_argument("--top-p", type=float, help="draw from the likeliest tokens of this probability")
    p.add_argument("--top-k", type=int, help="draw among the k likeliest tokens; 0 is off")
    p.add_argument("--min-p", type=float, help="drop tokens below this share of the likeliest")
    p.add_argument("--repetition-penalty", type=float, help="above 1 avoids repeating")
    p.add_argument("--seed", type=int, help="the same seed gives the same text")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    p.set_defaults(command=generate)

    p = verbs.add_parser("evaluate", help="loss, perplexity and bits per byte of a text")
    p.add_argument("model", metavar="RUN_OR_CHECKPOINT")
    add_fields(p, ["data_path", "text_field"])
    p.add_argument("--batch-tokens", type=int, default=8192, help="tokens in a forward pass")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(command=evaluate)

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

    for verb in verbs.choices.values():
        verb.add_argument("--debug", action="store_true", help="show Python's traceback of errors")
        verb.set_defaults(flags=[f for action in verb._actions for f in action.option_strings])
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    return load_config(**field_values(arguments))


def pretrain(arguments: argparse.Namespace) -> int:
    from jielong.api import pretrain as run

    values = field_values(arguments)
    if arguments.use_wandb is not None:
        try:
            values["tracker"] = "wandb" if parse_bool(arguments.use_wandb) else "none"
        except ValueError:
            raise ConfigError(f"use_wandb={arguments.use_wandb!r}: use true or false") from None
    config = load_config(arguments.preset, arguments.config, **values)
    result = run(config, arguments.override, verify=arguments.verify)
    if int(os.environ.get("RANK", "0")):
        return 128 + result.signal if result.signal else 0
    if result.signal:
        return 128 + result.signal
    _continue_prompts(result.checkpoint, config)
    print(f"run         {result.folder}")
    print(f"checkpoint  {result.checkpoint}")
    if result.validation:
        v = result.validation
        print(
            f"held-out    loss {v['loss']:.4f} · perplexity {v['perplexity']:.2f} · "
            f"{v['bits_per_byte']:.4f} bits per byte"
        )
    folder = shlex.quote(str(result.folder))
    print("next")
    print(f'  jielong generate {folder} --prompt "…"      continue a text')
    print(f"  jielong generate {folder}                   type lines, see them continued")
    print(f"  jielong evaluate {folder} --data-path FILE  loss on another text")
    return 0


def _continue_prompts(checkpoint: Path, config: Config) -> None:
    """What the trained model makes of the prompts that the user gave."""
    from jielong.api import generate as write
    from jielong.api import load

    if not config.run.sample_prompts:
        return
    model, tokenizer = load(checkpoint, config.training.device)
    for prompt in config.run.sample_prompts:
        print(f"\n── {prompt}", end="")
        for piece in write(
            model, tokenizer, prompt, FINAL_SAMPLE_TOKENS, seed=config.training.seed
        ):
            print(piece, end="", flush=True)
        print()
    print()


def train_tokenizer(arguments: argparse.Namespace) -> int:
    from jielong.stages import about_tokenizer, train_on_corpus

    config, out = _config(arguments), Path(arguments.out_dir)
    if (out / "tokenizer.json").exists():
        raise ConfigError(f"{out} holds a tokenizer already: choose another --out-dir")
    tokenizer = train_on_corpus(config)
    tokenizer.save(out)
    print(about_tokenizer(tokenizer, config.model.vocab_size, out))
    return 0


def prepare(arguments: argparse.Namespace) -> int:
    from jielong.data.prepare.prepare import prepare as run
    from jielong.tokenization.tokenizer import Tokenizer

    config = _config(arguments)
    if config.data.tokenizer is None:
        raise ConfigError(
            "data.tokenizer is missing: give --tokenizer DIR, or make one with `jielong tokenizer`"
        )
    tokenizer = Tokenizer.load(config.data.tokenizer)
    report = run(config, tokenizer, Path(arguments.out_dir), lambda line: print(line, flush=True))
    print("\n".join(report.lines()))
    return 0


def generate(arguments: argparse.Namespace) -> int:
    from jielong.api import generate as write
    from jielong.api import load

    if arguments.num_samples < 1:
        raise ConfigError(f"num_samples={arguments.num_samples} is below 1")
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    given = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    model, tokenizer = load(arguments.model, arguments.device)
    for prompt in _prompts(arguments.prompt):
        for sample in range(arguments.num_samples):
            seed = None if arguments.seed is None else arguments.seed + sample
            pieces = write(model, tokenizer, prompt, arguments.max_new_tokens, seed=seed, **given)
            print(prompt, end="", flush=True)
            for piece in pieces:
                print(piece, end="", flush=True)
            print("\n" if arguments.num_samples > 1 else "", flush=True)
    return 0


def _prompts(prompt: str | None) -> Iterator[str]:
    if prompt is not None:
        yield prompt
        return
    if not sys.stdin.isatty():
        try:
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is no UTF-8 text: {error}") from None
        return
    print("Type the beginning of a text; an empty line or Ctrl-D ends.")
    with contextlib.suppress(EOFError):
        while line := input("> "):
            yield line


def evaluate(arguments: argparse.Namespace) -> int:
    from jielong.api import evaluate as measure
    from jielong.api import load
    from jielong.data.sources.documents import Texts

    config = _config(arguments)
    if not config.data.data_path:
        raise ConfigError("data.data_path is missing: give --data-path FILE")
    if arguments.batch_tokens < 1:
        raise ConfigError(f"batch_tokens={arguments.batch_tokens} is below 1")
    model, tokenizer = load(arguments.model, arguments.device)
    texts = Texts(config.data.data_path, config.data.text_field)
    with texts.explain():
        result = measure(model, tokenizer, texts, arguments.batch_tokens)
    if texts.bad:
        print(f"{texts.bad} bad lines left out", file=sys.stderr)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))
        return 0
    print(f"loss            {result.loss:.4f} nats per token")
    print(f"perplexity      {result.perplexity:.2f}")
    print(f"bits per byte   {result.bits_per_byte:.4f}")
    print(f"text            {result.tokens:,} tokens, {result.bytes:,} bytes")
    print(f"speed           {result.tokens / max(result.seconds, 1e-9):,.0f} tokens/s")
    return 0


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
