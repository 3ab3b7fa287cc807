"""`jielong report` and `jielong runs`: what runs have done, as a page and as a table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jielong.cli.options import Commands, add_language
from jielong.cli.show import lines_in, warn_of_boxes
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
    p.add_argument("--png", metavar="FILE", help="write the curves as a picture instead")
    p.add_argument("--json", action="store_true", help="print one JSON object instead")
    add_language(p)
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
    add_language(p)
    p.set_defaults(command=runs)


def report(arguments: argparse.Namespace) -> int:
    """Run `jielong report`."""
    from jielong.present.words import sayer
    from jielong.reports import charts, curves
    from jielong.reports.chinese import CHINESE
    from jielong.reports.report import REPORT
    from jielong.reports.results import read_report
    from jielong.runtime.atomic import write_file

    say = sayer(arguments.lang, chinese=CHINESE)
    result = read_report(arguments.runs)
    for run in result.runs:
        for problem in run.problems:
            print(f"{run.run}: {problem}", file=sys.stderr)
    written = []
    if arguments.html or not (arguments.png or arguments.json):
        single = Path(result.runs[0].run) / REPORT
        file = Path(arguments.html or (single if len(result.runs) == 1 else COMPARISON))
        page = result.html(arguments.lang).encode("utf-8", "replace")
        write_file(_writable(file, "--html"), page)
        written.append(file)
        if not charts.available():
            print(lines_in(arguments.lang, CHINESE)(curves.MISSING), file=sys.stderr)
    if arguments.png:
        file = _writable(Path(arguments.png), "--png")
        write_file(file, result.png(arguments.lang))
        written.append(file)
        warn_of_boxes(result.page(say), arguments.lang)
    if arguments.json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
        return 0
    for file in written:
        print(file)
    return 0


def _writable(file: Path, flag: str) -> Path:
    if file.is_dir():
        raise ConfigError(f"{flag} {file} is a folder: give a file")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def runs(arguments: argparse.Namespace) -> int:
    """Run `jielong runs`."""
    from jielong.present.words import sayer
    from jielong.reports.chinese import CHINESE
    from jielong.reports.overview import print_runs, watch_runs
    from jielong.reports.results import list_runs

    if arguments.watch and arguments.json:
        raise ConfigError("--watch draws on the terminal, --json prints once: give one of them")
    say = sayer(arguments.lang, chinese=CHINESE)
    found = list_runs(arguments.folder)
    if arguments.watch:
        watch_runs(Path(arguments.folder), WATCH_S, say)
    elif arguments.json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        print_runs(found.runs, Path(arguments.folder), say)
    return 0
