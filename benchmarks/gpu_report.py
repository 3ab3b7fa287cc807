"""The table that `gpu.py` prints."""

from __future__ import annotations

from typing import Any


def table(report: dict[str, Any]) -> str:
    """Checks, then speeds beside the card's own rates, then where the time of a step goes."""
    parts = {p["name"]: p for p in report["parts"]}
    lines = ["", f"{report['card']} · torch {report['torch']} · CUDA {report['cuda']}", ""]
    lines += [_check(p) for p in parts.values() if p["kind"] == "check"]
    rates = (parts.get("rates") or {}).get("result") or {}
    if rates:
        lines += ["", "rates      " + " · ".join(f"{k} {v:,.1f}" for k, v in rates.items())]
    speeds = [p for p in parts.values() if p["name"].startswith("speed")]
    if speeds:
        lines += ["", f"{'':44}{'tokens/s':>12}{'MFU':>7}{'of own':>8}{'GiB':>7}{'ms/step':>9}"]
        lines += [_speed(p, rates) for p in speeds]
    for p in parts.values():
        if p["name"].startswith("step by part") and p.get("result"):
            lines += ["", p["name"]]
            lines += [f"  {k:28}{v:10.2f}" for k, v in p["result"]["milliseconds"].items()]
            lines += [
                f"  {row['operation'][:58]:60}{row['ms']:9.2f} ms{row['share']:7.1%}"
                for row in p["result"]["operations"][:12]
            ]
    counts = {s: sum(p["status"] == s for p in parts.values()) for s in ("ok", "failed", "skipped")}
    lines += ["", " · ".join(f"{n} {status}" for status, n in counts.items() if n)]
    lines += [f"FAILED {p['name']}" for p in parts.values() if p["status"] == "failed"]
    return "\n".join(lines)


def _check(part: dict[str, Any]) -> str:
    status = {"failed": "FAILED"}.get(part["status"], part["status"])
    said = part.get("error") or _short(part.get("result"))
    return f"{status:8}{part['name']:32}{said.splitlines()[-1][:110] if said else ''}"


def _short(result: Any) -> str:
    if not isinstance(result, dict):
        return str(result or "")
    words = []
    for key, value in result.items():
        if isinstance(value, float):
            value = f"{value:.3g}"
        words.append(f"{key} {_short(value) if isinstance(value, dict) else value}")
    return ", ".join(words).replace("\n", " ")


def _speed(part: dict[str, Any], rates: dict[str, float]) -> str:
    name, r = part["name"].removeprefix("speed "), part.get("result")
    if not r:
        why = (part.get("error") or "").splitlines()
        return f"{name:44}{part['status']}: {why[-1][:60] if why else ''}"
    own = rates.get("bf16 TFLOP/s")
    mfu = f"{r['mfu']:.1%}" if r.get("mfu") is not None else "–"
    of_own = f"{r['flops_per_second'] / own / 1e12:.1%}" if own else "–"
    return (
        f"{name:44}{r['tokens_per_second']:>12,}{mfu:>7}{of_own:>8}{r['peak_gib']:>7.1f}"
        f"{r['step_ms']:>9.1f}"
    )
