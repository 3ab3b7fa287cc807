"""`jielong plan`: what a run will take, before it runs."""

from __future__ import annotations

import argparse
from typing import Any

from jielong.cli.options import Commands, add_fields, add_settings_from, field_values
from jielong.cli.show import add_show, show, teller
from jielong.config.aliases import BATCH_ALIASES
from jielong.config.settings import FIELDS
from jielong.runtime.cards import CARDS


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser(
        "plan",
        help="memory, time and cost of a run before it runs",
        usage="jielong plan [--preset NAME] [--config FILE] --data-path TEXT [settings]",
    )
    add_settings_from(p)
    p.add_argument("--gpu", help=f"plan for this GPU instead: {', '.join(CARDS)}")
    p.add_argument(
        "--mfu", type=float, help="share of that GPU's peak that is assumed (default 0.3)"
    )
    p.add_argument("--price-per-hour", type=float, help="of the machine; gives the cost")
    add_show(p)
    add_fields(p, [*FIELDS, *BATCH_ALIASES])
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from jielong.api import plan

    a = arguments
    settings = field_values(a) | {"preset": a.preset, "file": a.config}
    options: dict[str, Any] = {"price_per_hour": a.price_per_hour, "log": teller(a.lang)}
    if a.mfu is not None:
        options["mfu"] = a.mfu
    return show(plan(settings, a.gpu, **options), a)
