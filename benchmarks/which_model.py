"""Which model `--minutes` chooses for texts of 50 KB to 5 GB: the tables of docs/which-model.md.

    python benchmarks/which_model.py            # measures this machine, writes results and tables
    python benchmarks/which_model.py --tables   # writes the tables of the results that are there

The speeds of this machine are measured, once for each size. Those of a GPU are computed: a share of
its peak rate, and a least time for an update, in which small models are lost.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, save

from jielong.config.load import load_config
from jielong.config.settings import Config
from jielong.runtime.cards import card_named
from jielong.runtime.device import fast_products
from jielong.training.minutes import BYTES_PER_TOKEN, largest_size, tokens_in
from jielong.training.scaling import (
    MOST_EPOCHS,
    REPEATED,
    epochs_each,
    teachers_for,
    vocabulary_for,
)
from jielong.training.speed import Machine, Speed, measure_speed
from jielong.training.utilisation import flops_per_token

NAME = "which_model"
DOCS = Path(__file__).resolve().parent.parent / "docs"
BYTES = {"50 KB": 5e4, "500 KB": 5e5, "5 MB": 5e6, "50 MB": 5e7, "500 MB": 5e8, "5 GB": 5e9}
MINUTES = {"cpu": (5, 30, 240), "h100": (10, 60, 480)}
MFU = 0.3  # share of the peak that training reaches, as `jielong plan` has it
LEAST_UPDATE_S = 0.01  # of a GPU: launching the kernels of a step takes that long
WORDS = {
    "en": ("text", "{:g} minutes", "{:g} hours", "{width} × {layers}, {parameters}; {epochs}"),
    "zh-CN": ("文本", "{:g} 分钟", "{:g} 小时", "{width} × {layers}，{parameters}；{epochs}"),
}
EPOCHS = {"en": "read {:.2g}×", "zh-CN": "读 {:.2g} 遍"}
TEACHERS = {"en": ", {} teachers", "zh-CN": "，{} 个教师"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    if not parser.parse_args().tables:
        measured: dict[str, Speed] = {}

        def on_this_machine(config: Config) -> Speed:
            # a vocabulary of another size changes the speed of small models: measured for each
            key = f"{config.model.hidden_size} {config.model.vocab_size}"
            if key not in measured:
                with fast_products():
                    machine = Machine(torch.device("cpu"))
                    measured[key] = measure_speed(config, machine, REPEATED)
                print(key, measured[key], flush=True)
            return measured[key]

        result = {"cpu": choices("cpu", on_this_machine), "h100": choices("h100", on_a_gpu)}
        print(save(NAME, {"chosen": result, "assumed": {"mfu": MFU, "update_s": LEAST_UPDATE_S}}))
    for language in WORDS:
        page = page_of(language)
        page.write_text(with_tables(page.read_text(), language))


def page_of(language: str) -> Path:
    return DOCS / ("which-model.md" if language == "en" else f"which-model.{language}.md")


def on_a_gpu(config: Config) -> Speed:
    model = config.model
    flops = flops_per_token(model, model.parameter_count, config.data.max_seq_len)
    return Speed(flops / (MFU * card_named("h100").bf16_flops), LEAST_UPDATE_S)


def choices(machine: str, speed_of: Callable[[Config], Speed]) -> list[dict[str, Any]]:
    """What is chosen for each text and time on a machine."""
    found = []
    for text, size in BYTES.items():
        for minutes in MINUTES[machine]:
            found.append({"text": text, "minutes": minutes} | choice(size, minutes, speed_of))
    return found


def choice(size: float, minutes: float, speed_of: Callable[[Config], Speed]) -> dict[str, Any]:
    """The model, how often it reads the text, and its teachers."""
    config = load_config(vocab_size=vocabulary_for(round(size)))
    text_tokens, seconds = round(size / BYTES_PER_TOKEN), 60.0 * minutes
    model, _ = largest_size(config, text_tokens, seconds, speed_of)
    config = config.with_values(**model.values())
    could = tokens_in(config, speed_of(config), seconds, text_tokens) / text_tokens
    teachers = teachers_for(could)
    epochs = min(MOST_EPOCHS, epochs_each(could, teachers))
    return {
        "width": model.hidden_size,
        "layers": model.num_hidden_layers,
        "vocabulary": config.model.vocab_size,
        "parameters": config.model.parameter_count,
        "tokens": round(epochs * text_tokens),
        "epochs": round(epochs, 3),
        "teachers": teachers,
    }


def with_tables(text: str, language: str) -> str:
    """A page with its tables, between marks that name a machine, as the results have them."""
    found = json.loads((RESULTS / f"{NAME}.json").read_text())["chosen"]
    for machine, rows in found.items():
        marks = rf"(<!-- {machine} -->\n).*?(<!-- end -->)"
        made = table(rows, language)
        text = re.sub(marks, lambda m, made=made: m[1] + made + m[2], text, flags=re.DOTALL)
    return text


def table(rows: list[dict[str, Any]], language: str) -> str:
    head, minutes_word, hours_word, cell = WORDS[language]
    times = sorted({row["minutes"] for row in rows})
    named = [
        minutes_word.format(m) if m < 60 else hours_word.format(m / 60).replace("1 hours", "1 hour")
        for m in times
    ]
    lines = [f"| {head} | " + " | ".join(named) + " |", "|---" * (len(times) + 1) + "|"]
    for text in BYTES:
        cells = []
        for row in (r for r in rows if r["text"] == text):
            epochs = EPOCHS[language].format(row["epochs"])
            if row["teachers"]:
                epochs += (
                    TEACHERS[language].format(row["teachers"]).replace("1 teachers", "1 teacher")
                )
            parameters = f"{row['parameters'] / 1e6:.3g}M"
            values = {"width": row["width"], "layers": row["layers"], "parameters": parameters}
            cells.append(cell.format(**values, epochs=epochs))
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
