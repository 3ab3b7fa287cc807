"""Runs as they train: their curves and samples, read from the folder as the report reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from jielong.errors import JielongError
from jielong.reports.charts import thin
from jielong.reports.history import Record, RunHistory, number, read_history
from jielong.reports.status import state_of
from jielong.runtime.run_folder import RunFolder
from jielong.serving.errors import RequestError
from jielong.serving.web import json_response
from jielong.ui.players import Players, Subject

CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "imbalance")
HELD_OUT = ("loss", "bits_per_byte")
MOST_SAMPLES = 2000


class Watch:
    """The endpoint that tells how a run stands."""

    def __init__(self, players: Players) -> None:
        self.players = players

    async def watch(self, request: Request) -> Response:
        """Tell how a run stands; 204 if nothing is new since the `tag` that the page has."""
        given = request.query_params.get("run", "")
        subject = self.players.subject(int(given) if given.isdecimal() and len(given) < 9 else -1)
        tag = await run_in_threadpool(_tag, subject)
        if request.query_params.get("tag") == tag:
            return Response(status_code=204)
        return json_response(await run_in_threadpool(standing, subject) | {"tag": tag})


def _tag(subject: Subject) -> str:
    """What changes when there is something new."""
    folder = RunFolder(subject.folder)
    try:
        stat = folder.metrics_file.stat()
    except OSError:
        return "none"
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}-{int(folder.in_use())}"


def standing(subject: Subject) -> dict[str, Any]:
    """Return state, curves, warnings and samples of a run.

    Raises:
        RequestError: the folder is no run's, or no more.
    """
    try:
        run = read_history(subject.folder)
    except (JielongError, OSError):
        raise RequestError(f"{subject.name} is not the folder of a run", 404, "run") from None
    best = run.best
    return {
        "name": subject.name,
        "state": state_of(run),
        "step": run.step,
        "total_steps": run.total_steps,
        "parameters": run.start.get("parameters"),
        "seconds": run.seconds[-1] if run.seconds else 0.0,
        "tokens": run.train[-1].get("tokens") if run.train else 0,
        "best": None if best is None else {"step": best["step"], "bits": best["bits_per_byte"]},
        "curves": _curves(run),
        "warnings": [
            {"step": r["step"], "text": str(r.get("text"))}
            for r in run.records.get("warning", [])[-20:]
        ],
        "problems": run.problems,
        "samples": [
            {"step": r["step"], "prompt": str(r.get("prompt")), "text": str(r.get("text"))}
            for r in run.records.get("sample", [])[-MOST_SAMPLES:]
        ],
    }


def _curves(run: RunHistory) -> dict[str, Any]:
    """Each curve as points (x, y); `axes` say what tokens and seconds a step stands for."""
    found: dict[str, Any] = {}
    steps = [r["step"] for r in run.train]
    for name in CURVES:
        line = thin(steps, [_number(r.get(name)) for r in run.train])
        if line.xs:
            found[name] = list(zip(line.xs, line.ys, strict=True))
    for name in HELD_OUT:
        points = _points(run.validations, name)
        if points:
            found[f"held_out_{name}"] = points
    axes = {
        "tokens": thin(steps, [_number(r.get("tokens")) for r in run.train]),
        "seconds": thin(steps, run.seconds),
    }
    found["axes"] = {name: list(zip(line.xs, line.ys, strict=True)) for name, line in axes.items()}
    return found


def _points(records: Sequence[Record], name: str) -> list[tuple[float, float]]:
    return [(r["step"], float(r[name])) for r in records if number(r.get(name))]


def _number(value: Any) -> float | None:
    return float(value) if number(value) else None
