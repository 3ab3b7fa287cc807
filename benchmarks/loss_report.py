"""The table and the picture of time_to_loss.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import save

Curve = list[tuple[float, float]]  # seconds, bits per byte


def reached(curve: Curve, bits: float) -> float | None:
    """Seconds until the curve is first at `bits` or lower, between measures in a straight line."""
    before: tuple[float, float] | None = None
    for seconds, value in curve:
        if value <= bits:
            if before is None or value == before[1]:
                return seconds
            share = (before[1] - bits) / (before[1] - value)
            return before[0] + share * (seconds - before[0])
        before = (seconds, value)
    return None


def keep(
    name: str, curves: dict[str, Curve], title: str, texts: list[str], model: dict[str, int]
) -> list[dict[str, Any]]:
    """Write the results so far and their picture; returns the rows of the table."""
    ours = curves.get("jielong", [])
    rows = []
    for contender, curve in curves.items():
        seconds, bits = curve[-1]
        when = reached(ours, bits)
        rows.append(
            {
                "contender": contender,
                "seconds": round(seconds, 1),
                "bits_per_byte": round(bits, 4),
                "jielong_reaches_it_after": when and round(when, 1),
                "times_faster": when and round(seconds / when, 1),
            }
        )
    result = {
        "documents": len(texts),
        "bytes": sum(len(text.encode()) for text in texts),
        "model": model,
        "table": rows,
        "curves": {key: [(round(s, 1), round(b, 4)) for s, b in c] for key, c in curves.items()},
    }
    plot(curves, save(name, result).with_suffix(".png"), title)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'contender':10} {'seconds':>8} {'bits/byte':>10} {'we reach it':>12} {'times':>6}")
    for row in rows:
        when, times = row["jielong_reaches_it_after"], row["times_faster"]
        print(
            f"{row['contender']:10} {row['seconds']:8} {row['bits_per_byte']:10} "
            f"{when if when else '-':>12} {times if times else '-':>6}"
        )


def plot(curves: dict[str, Curve], path: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name, marker=".", markersize=4)
    axes.set(xlabel="seconds, validation left out", ylabel="held-out bits per byte", title=title)
    best = min(bits for curve in curves.values() for _, bits in curve)
    axes.set_ylim(best - 0.1, min(4.5, max(c[0][1] for c in curves.values())))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
