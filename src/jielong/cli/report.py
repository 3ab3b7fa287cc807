"""`jielong report` and `jielong runs`: what runs have done, as a page and as a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jielong.cli.options import Commands
from jielong.errors import ConfigError

DEFAULT_FOLDER = "runs"
COMPARISON = "comparison.html"
WATCH_S = 2.0


def add(commands: Commands) -> None:
    """Add both commands and their flags."""
    p = commands.add_parser(
        "report", help="a page of a run's curves, samples and settings; of several runs, compared"
    )
    p.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    p.add_argument(
        "--html",
        metavar="FILE",
        help="file to write; default: report.html in the folder of a single run, comparison.html "
        "here for several",
    )
    p.add_argument("--lang", default="auto", help="en, zh, or auto (default): the locale's")
    p.set_defaults(command=report)

    p = commands.add_parser("runs", help="a table of runs: state, step, held-out, age, size")
    p.add_argument(
        "folder",
        nargs="?",
        default=DEFAULT_FOLDER,
        help=f"where to look (default {DEFAULT_FOLDER})",
    )
    p.add_argument("--watch", action="store_true", help="again every 2 seconds, until Ctrl-C")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(command=runs)


def report(arguments: argparse.Namespace) -> int:
    """Run `jielong report`."""
    from jielong.report import charts, curves
    from jielong.report.history import read_history
    from jielong.report.report import REPORT, write_report

    found = [read_history(run) for run in dict.fromkeys(arguments.runs)]
    file = Path(arguments.html or (found[0].folder / REPORT if len(found) == 1 else COMPARISON))
    if file.is_dir():
        raise ConfigError(f"--html {file} is a folder: give a file")
    for run in found:
        for problem in run.problems:
            print(f"{run.folder}: {problem}", file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_report(found, file, arguments.lang)
    if not charts.available():
        print(curves.MISSING, file=sys.stderr)
    print(file)
    return 0


def runs(arguments: argparse.Namespace) -> int:
    """Run `jielong runs`."""
    from jielong.report.overview import print_runs, watch_runs

    if arguments.watch and arguments.json:
        raise ConfigError("--watch draws on the terminal, --json prints once: give one of them")
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder: give the folder that runs are in, such as `jielong runs .`"
        )
    if arguments.watch:
        watch_runs(folder, WATCH_S)
    else:
        print_runs(folder, arguments.json)
    return 0
