"""Wall-clock time until the held-out loss reaches what the old way ends at.

    python benchmarks/time_to_loss.py --corpus shakespeare
    python benchmarks/time_to_loss.py --corpus poems --short

All contenders have one model size (hidden 128, 4 layers), one tokenizer, one text, one held-out
split and one measure of it; one epoch each. The clock runs from the start of the command (for us
from the start of the process `jielong pretrain`, preparing included) and leaves out validation.
    jielong   `jielong pretrain` with its defaults
    adamw     the same code with packing and a well-set AdamW (betas 0.9/0.95, warm-up, cosine)
    old       padding, AdamW 5e-4, its cosine, eager: benchmarks/old_way.py
    script    MiniMind's own trainer/train_pretrain.py, unchanged, with our tokenizer; of a checkout
              that `--script DIR` names; only its steps are on the clock
    trainer   the transformers Trainer on blocks of text, AdamW, warm-up and cosine
    litgpt    litgpt's pretraining on the same blocks and AdamW, in an environment of its own:
              `make bench-litgpt` makes that first
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import real_script
import torch
from common import RESULTS, SCRATCH, as_jsonl, corpus, read_texts, results, split
from loss_report import Curve, keep, show

from jielong.evaluation.likelihood import Likelihood, evaluate_documents
from jielong.model.transformer import ModelOutput
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

SETTINGS = {  # documents, window, batch of the old way
    "shakespeare": (None, 512, 8),
    "poems": (20000, 128, 32),
    "python": (3000, 512, 8),
}
MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VOCABULARY, MEASURES = 6400, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", choices=tuple(SETTINGS), default="shakespeare")
    parser.add_argument("--contenders", nargs="+", default=["jielong", "adamw", "old"])
    parser.add_argument("--hidden-size", type=int, default=MODEL["hidden_size"])
    parser.add_argument("--script", type=Path, metavar="DIR", help="a checkout of MiniMind")
    parser.add_argument("--script-flags", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--add", action="store_true", help="beside the results that are there")
    parser.add_argument("--short", action="store_true", help="a sixth of the text")
    parser.add_argument("--adamw-rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    MODEL["hidden_size"] = arguments.hidden_size
    documents, window, batch = SETTINGS[arguments.corpus]
    texts = corpus(arguments.corpus, documents)
    texts = texts[:: 6 if arguments.short else 1]
    folder = SCRATCH / f"{arguments.corpus}-{'short' if arguments.short else 'whole'}"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = lay_out(texts, folder)
    name = f"time_to_loss-{arguments.corpus}{'-short' if arguments.short else ''}"
    if arguments.hidden_size != 128:
        name += f"-h{arguments.hidden_size}"
    title = f"{arguments.corpus}, hidden {arguments.hidden_size}"
    curves: dict[str, Curve] = results(name).get("curves", {}) if arguments.add else {}
    rows: list[dict[str, Any]] = []
    for contender in arguments.contenders:
        if contender == "script" and (why := real_script.missing(arguments.script)):
            print(f"script     left out: {why}")
            continue
        curve = CONTENDERS[contender](folder, tokenizer, window, batch, arguments)
        curves[contender] = curve
        seconds, bits = curve[-1]
        print(f"{contender:10} {seconds:7.1f} s   ends at {bits:.4f} bits/byte", flush=True)
        rows = keep(name, curves, title, texts, MODEL)
    show(rows)
    print(RESULTS / f"{name}.json")


def lay_out(texts: list[str], folder: Path) -> Tokenizer:
    """Training and held-out text as JSONL, and a tokenizer: none of it on anybody's clock."""
    folder.mkdir(parents=True)
    for name, part in zip(("train", "held-out"), split(texts), strict=True):
        (folder / f"{name}.jsonl").write_bytes(as_jsonl(part))
    tokenizer = train_tokenizer(iter(texts), VOCABULARY, 2**24)
    tokenizer.save(folder / "tokenizer")
    return tokenizer


def run_jielong(
    folder: Path, tokenizer: Tokenizer, window: int, batch: int, arguments: Any, *flags: str
) -> Curve:
    """Our command, as a user runs it; the curve from its own metrics.jsonl."""
    run = folder / f"run-{len(list(folder.iterdir()))}"
    command = [sys.executable, "-m", "jielong", "pretrain"]
    command += ["--data-path", str(folder / "train.jsonl")]
    command += ["--validation-path", str(folder / "held-out.jsonl")]
    command += ["--tokenizer", str(folder / "tokenizer"), "--max-seq-len", str(window)]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in MODEL.items()]
    command += ["--eval-tokens", "1000000000", "--sample-tokens", "0"]
    command += ["--out-dir", str(run), *flags]
    started = time.time()
    steps = _steps(command)
    subprocess.run(
        [*command, "--eval-interval", str(max(1, steps // MEASURES)), "--save-interval", "100000"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    curve, validating = [], 0.0
    for line in (run / "metrics.jsonl").read_bytes().splitlines():
        record = orjson.loads(line)
        if record["kind"] == "validation":
            validating += record["seconds"]
            curve.append((record["time"] - started - validating, record["bits_per_byte"]))
    return curve


def _steps(command: list[str]) -> int:
    """About how many steps the run will have, for even measuring; costs the clock nothing big."""
    window = int(command[command.index("--max-seq-len") + 1])
    text = Path(command[command.index("--data-path") + 1]).stat().st_size
    tokens = text / 3.2
    return max(MEASURES, int(tokens / max(2 * tokens**0.5, window)))


def run_adamw(folder: Path, tokenizer: Tokenizer, window: int, batch: int, arguments: Any) -> Curve:
    flags = ["--optimizer", "adamw", "--learning-rate", str(arguments.adamw_rate)]
    flags += ["--beta1", "0.9", "--beta2", "0.95"]
    flags += ["--schedule", "cosine", "--min-lr-ratio", "0.1", "--warmup-ratio", "0.05"]
    flags += ["--batch-warmup", "false", "--average-weights", "false"]
    return run_jielong(folder, tokenizer, window, batch, arguments, *flags)


class AsOurs(torch.nn.Module):
    """Another's model behind the call that our evaluator makes."""

    def __init__(self, logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.logits, self.anchor = logits, torch.nn.Parameter(torch.zeros(()))

    def forward(
        self,
        tokens: torch.Tensor,
        targets: torch.Tensor | None = None,
        document_ids: torch.Tensor | None = None,
    ) -> ModelOutput:
        assert targets is not None
        logits = self.logits(tokens).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")
        return ModelOutput(loss=loss)


def held_out(
    folder: Path, tokenizer: Tokenizer, window: int, logits: Callable[[torch.Tensor], torch.Tensor]
) -> Likelihood:
    """Each held-out document from its beginning. (Ours are cut into windows wherever a border
    falls, as in training, and so have a little less context: the difference is in their favour.)
    """
    texts = texts_of(folder, "held-out")
    return evaluate_documents(AsOurs(logits), tokenizer, texts, window)


def texts_of(folder: Path, part: str) -> list[str]:
    """What `lay_out` wrote: `train` or `held-out`."""
    return read_texts(folder / f"{part}.jsonl")


def padded_rows(folder: Path, tokenizer: Tokenizer, length: int) -> torch.Tensor:
    """Documents as the old way feeds them: bos, text cut to fit, eos, padding: (N, length)."""
    texts = texts_of(folder, "train")
    rows = np.full((len(texts), length), tokenizer.pad_id, np.int64)
    for row, ids in zip(rows, tokenizer.encode_batch(texts), strict=True):
        document = np.r_[tokenizer.bos_id, ids[: length - 2], tokenizer.eos_id]
        row[: len(document)] = document
    return torch.from_numpy(rows)


def run_old(folder: Path, tokenizer: Tokenizer, window: int, batch: int, arguments: Any) -> Curve:
    from old_way import Llama, train

    started = time.perf_counter()
    rows = padded_rows(folder, tokenizer, window)
    prepared = time.perf_counter() - started
    torch.manual_seed(0)
    model = Llama(tokenizer.vocab_size, MODEL["hidden_size"], 4, 4, 2, window)
    curve: Curve = []

    def measure(step: int, seconds: float) -> bool:
        bits = held_out(folder, tokenizer, window, model).bits_per_byte
        curve.append((prepared + seconds, bits))
        return False

    train(
        model,
        rows,
        pad=int(tokenizer.pad_id or 0),
        batch_size=batch,
        accumulation=1,  # its default of 8 gives too few updates here: this is its better side
        rate=5e-4,
        measure=measure,
        every=max(1, len(rows) // batch // 8),
    )
    return curve


def run_script(
    folder: Path, tokenizer: Tokenizer, window: int, batch: int, arguments: Any
) -> Curve:
    hidden, layers = MODEL["hidden_size"], MODEL["num_hidden_layers"]
    flags = {
        "hidden_size": str(hidden),
        "num_hidden_layers": str(layers),
        "max_seq_len": str(window),
        "batch_size": str(batch),
    }
    given = dict(flag.split("=", 1) for flag in arguments.script_flags)
    saved = real_script.train(
        arguments.script,
        folder / "script",
        folder / "tokenizer",
        folder / "train.jsonl",
        len(texts_of(folder, "train")),
        flags | given,
    )
    return [
        (seconds, held_out(folder, tokenizer, window, model).bits_per_byte)
        for seconds, file in saved
        for model in [real_script.load(arguments.script, file, hidden, layers)]
    ]


def blocks_of_text(folder: Path, tokenizer: Tokenizer, length: int) -> np.ndarray:
    """The training text as one stream cut into blocks, (N, length) int64; the rest is left out."""
    encoded = tokenizer.encode_batch(texts_of(folder, "train"))
    documents = [np.r_[tokenizer.bos_id, ids, tokenizer.eos_id] for ids in encoded]
    stream = np.concatenate(documents).astype(np.int64)
    return stream[: len(stream) // length * length].reshape(-1, length)


def packed_batch(window: int, batch: int) -> int:
    """Blocks in a batch: half as many where the old way's rows were mostly padding."""
    return batch if window >= 512 else batch // 2


def run_trainer(
    folder: Path, tokenizer: Tokenizer, window: int, batch: int, arguments: Any
) -> Curve:
    from hf_trainer import train

    started = time.perf_counter()
    blocks = blocks_of_text(folder, tokenizer, window)
    prepared = time.perf_counter() - started
    return train(
        blocks,
        MODEL,
        tokenizer.vocab_size,
        batch_size=packed_batch(window, batch),
        rate=arguments.adamw_rate,
        measures=8,
        prepared=prepared,
        bits=lambda logits: held_out(folder, tokenizer, window, logits).bits_per_byte,
    )


def run_litgpt(
    folder: Path, tokenizer: Tokenizer, window: int, batch: int, arguments: Any
) -> Curve:
    root = Path(__file__).parents[1]
    python, out = root / ".venv-litgpt" / "bin" / "python", folder / "litgpt.json"
    if not python.exists():
        raise SystemExit("litgpt has an environment of its own: run `make bench-litgpt`")
    sizes = (
        tokenizer.vocab_size,
        window,
        packed_batch(window, batch),
        arguments.adamw_rate,
        MODEL["hidden_size"],
    )
    command = [str(python), "litgpt_pretrain.py", str(folder), *map(str, sizes), str(out)]
    log = folder / "litgpt.log"
    with log.open("wb") as file:
        if subprocess.run(command, cwd=Path(__file__).parent, stdout=file, stderr=file).returncode:
            raise SystemExit(f"litgpt failed: {log}")
    return [(seconds, bits) for seconds, bits in orjson.loads(out.read_bytes())]


CONTENDERS: dict[str, Callable[..., Curve]] = {
    "jielong": run_jielong,
    "adamw": run_adamw,
    "old": run_old,
    "script": run_script,
    "trainer": run_trainer,
    "litgpt": run_litgpt,
}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
