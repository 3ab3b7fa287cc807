"""`jielong ui`: a local page to play word chain with a model, watch runs and look inside."""

from __future__ import annotations

import argparse

from jielong.cli.listening import (
    TOKEN_VARIABLE,
    access_of,
    add_listening,
    address,
    is_secret,
    require_extra,
)
from jielong.cli.options import Commands
from jielong.cli.show import lines_in
from jielong.cli.terminal import print_row
from jielong.present.words import sayer

LABEL_WIDTH = 10
NEEDED = ("starlette", "uvicorn", "matplotlib")


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("ui", help="play word chain, watch runs, look inside: a local page")
    p.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of runs, also in training, or of models"
    )
    add_listening(p, port=8010)
    p.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    require_extra("ui", NEEDED)
    from jielong.observe.chinese_errors import ERRORS
    from jielong.reports.chinese import CHINESE as OF_REPORTS
    from jielong.serving.errors import RequestError
    from jielong.serving.limits import Limits
    from jielong.serving.server import Server, listen
    from jielong.ui.app import LOGIN, create_app
    from jielong.ui.players import Players, subjects_of

    say, shown = sayer(arguments.lang), lines_in(arguments.lang, ERRORS | OF_REPORTS)
    limits = Limits(slots=4, queue=16, max_tokens=1000, connections=64)
    access = access_of(arguments)
    subjects = subjects_of(arguments.runs)
    players = Players(subjects, arguments.device, limits)
    listener = listen(arguments.host, arguments.port)  # a taken port shows before models load
    for subject in subjects:
        try:
            player = players.get(subject.number)  # the page is of use at once
        except RequestError as error:
            if not subject.is_run:
                raise
            about = say("no checkpoint yet, only to be watched")
            if subject.steps():
                about = shown(str(error))
            print_row(say("run"), f"{subject.name}: {about}", LABEL_WIDTH)
        else:
            about = shown(player.label) or say("a model")
            print_row(say("run"), f"{subject.name}: {about}", LABEL_WIDTH)
            break  # others are loaded when they are asked for
    app = create_app(players, access)
    url = address(arguments, listener)
    if access.token is not None:
        url += f"{LOGIN}?token={access.token if is_secret(access) else f'${TOKEN_VARIABLE}'}"
    listener.listen()  # who reads the next line may connect
    print_row(say("page"), url, LABEL_WIDTH)
    print(say("Ctrl-C ends it."), flush=True)
    Server(app, players, limits).serve_on(listener)
    return 0
