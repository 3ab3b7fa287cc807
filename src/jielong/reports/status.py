"""Whether a run is running, finished, stopped or failed."""

from __future__ import annotations

import os

from jielong.reports.history import RunHistory
from jielong.runtime.run_folder import RunFolder

STATES = ("running", "finished", "stopped", "failed")


def state_of(run: RunHistory) -> str:
    """Return the state of a run, one of `STATES`.

    Running is what holds the folder's lock. What ended without a word, as a killed process does, is
    stopped: the same command goes on with it.
    """
    folder = RunFolder(run.folder)
    ended_here = run.end is not None and folder.holder() == os.getpid()  # as it writes its report
    if not ended_here and folder.in_use():
        return "running"
    if run.end is not None:
        state = run.end.get("state")
        return state if state in STATES else "stopped"
    done = run.total_steps is not None and run.step >= run.total_steps
    return "finished" if done else "stopped"
