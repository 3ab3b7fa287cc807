"""What `--minutes` chooses, beside a grid of other choices in the same time.

    python benchmarks/own_text_grid.py --size 8 --minutes 10 --threads 1

First `jielong pretrain --minutes` as a user runs it, then runs with the same time and explicit
settings, each with one thing changed: width, layers, epochs, vocabulary, window, batch, rate,
regularisation, teachers. Text and measure are those of own_text.py. Each point is kept as it ends
and is not run again; several of these may run at once, on one text too: they share the points.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import SCRATCH, merge, results
from filelock import FileLock, Timeout
from own_text import lay_out, run_jielong

from jielong.training.scaling import MODEL_SIZES

AUTO = "auto"
Settings = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus", choices=("shakespeare", "poems", "python", "cpp"), default="shakespeare"
    )
    parser.add_argument("--size", type=int, default=8, help="each how manieth document is read")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, help="of each run; default: all cores")
    parser.add_argument("--points", nargs="+", help="only these, of those that are listed")
    parser.add_argument("--list", action="store_true", help="list the points, once auto has run")
    arguments = parser.parse_args()
    name = f"own_text_grid-{arguments.corpus}-{arguments.size}-{arguments.minutes:g}min"
    if arguments.threads:
        name += f"-{arguments.threads}threads"
    folder = SCRATCH / name
    lay_out(arguments.corpus, folder, arguments.size)
    run(name, folder, AUTO, {"minutes": arguments.minutes}, arguments.threads, wait=True)
    points = grid(results(name)["points"][AUTO], arguments.minutes)
    for point, settings in points.items():
        if arguments.list:
            print(point, *as_flags(settings))
        elif not arguments.points or point in arguments.points:
            run(name, folder, point, settings, arguments.threads)
    print("\n".join(as_table(results(name)["points"])))


def run(
    name: str, folder: Path, point: str, settings: Settings, threads: int | None, wait: bool = False
) -> None:
    """Run a point that has no result, unless another process does; `wait` for that."""
    out = folder / point.replace(" ", "_")
    try:
        with FileLock(out.with_suffix(".lock"), blocking=wait):
            if point in results(name).get("points", {}):
                return
            found = run_jielong(out, folder, as_flags(settings), threads)
            found["settings"] = settings
            record = merge(
                name, lambda record: {"points": record.get("points", {}) | {point: found}}
            )
            auto = record["points"][AUTO]["bits_per_byte"]
            difference = found["bits_per_byte"] - auto
            print(f"{point:16} {found['bits_per_byte']:.4f} ({difference:+.4f})", flush=True)
    except Timeout:
        print(f"{point:16} is being run by another process", flush=True)


def as_flags(settings: Settings) -> list[str]:
    flags: list[str] = []
    for name, value in settings.items():
        flags += [f"--{name.replace('_', '-')}", str(value).lower()]
    return flags


def grid(auto: dict[str, Any], minutes: float) -> dict[str, Settings]:
    """The points around what was chosen, by name, in the order in which they run."""
    size, chosen = dict(auto["size"]), auto["choices"]
    window = size.pop("window")
    same = {"minutes": minutes, **size, "max_seq_len": window}
    index = next(
        i for i, other in enumerate(MODEL_SIZES) if other.hidden_size == size["hidden_size"]
    )
    points: dict[str, Settings] = {"the same": same}
    for word, neighbour in (("narrower", index - 1), ("wider", index + 1)):
        if 0 <= neighbour < len(MODEL_SIZES):
            other = MODEL_SIZES[neighbour].values()
            points[word] = same | other | {"max_seq_len": window}
            layers = {"num_hidden_layers": size["num_hidden_layers"]}
            if other["num_hidden_layers"] != size["num_hidden_layers"]:
                points[f"{word} alone"] = points[word] | layers
    layers = size["num_hidden_layers"]
    points["fewer layers"] = same | {"num_hidden_layers": layers - max(1, layers // 4)}
    points["more layers"] = same | {"num_hidden_layers": layers + max(1, layers // 4)}
    strength = ("weight_decay", "dropout", "input_noise", "bpe_dropout")
    for times in (0.5, 1.5):
        weaker = {name: round(chosen[name] * times, 4) for name in strength}
        points[f"regularised x{times:g}"] = same | weaker
    vocabulary = size["vocab_size"]
    for times in (0.5, 2):
        points[f"vocabulary x{times:g}"] = same | {"vocab_size": round(vocabulary * times)}
    for times in (0.7, 1.4):
        rate = float(f"{chosen['learning_rate'] * times:.3g}")
        points[f"rate x{times:g}"] = same | {"learning_rate": rate}
    for times in (0.5, 2):
        batch = max(1, round(chosen["global_batch_size"] * times))
        warmup = {"batch_warmup": chosen["batch_warmup"]}
        points[f"batch x{times:g}"] = same | {"global_batch_size": batch} | warmup
    teachers = auto["teachers"]
    points["epochs x0.6"] = _for_tokens(same, 0.6 * auto["tokens"], teachers)
    if auto["seconds"] < 0.8 * 60 * minutes or teachers:  # there is time for more
        points["epochs x1.5"] = _for_tokens(same, 1.5 * auto["tokens"], max(0, teachers - 1))
    points["window x2"] = same | {"max_seq_len": 2 * window}
    if teachers:
        points["a teacher less"] = same | {"teachers": teachers - 1}
    else:
        points["a teacher"] = same | {"teachers": 1}
    return points


def _for_tokens(settings: Settings, tokens: float, teachers: int) -> Settings:
    """With so many tokens instead of a time."""
    sizes = {name: value for name, value in settings.items() if name != "minutes"}
    return sizes | {"tokens": round(tokens), "teachers": teachers}


def as_table(points: dict[str, dict[str, Any]]) -> list[str]:
    """All points as a table in Markdown, the best first."""
    lines = [
        "| point | bits/byte | to auto | seconds | tokens | parameters |",
        "|---|---|---|---|---|---|",
    ]
    auto = points[AUTO]["bits_per_byte"]
    for name, of in sorted(points.items(), key=lambda item: item[1]["bits_per_byte"]):
        lines.append(
            f"| {name} | {of['bits_per_byte']:.4f} | {of['bits_per_byte'] - auto:+.4f} "
            f"| {of['seconds']} | {of['tokens'] / 1e6:.2f}M | {of['parameters'] / 1e6:.2f}M |"
        )
    return lines


if __name__ == "__main__":
    main()
