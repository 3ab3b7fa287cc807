"""The names of the evaluation suites, and how `NAME=PATH` asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jielong.config.hints import nearest
from jielong.errors import ConfigError

SUITES = ("text", "grammar", "cloze", "copying", "writing", "memorising", "tasks")
TAKE_A_PATH = ("text", "grammar", "tasks")
OTHER_NAMES = {"recall": "copying", "induction": "copying", "blimp": "grammar"}
OTHER_NAMES |= {"memorizing": "memorising", "memorization": "memorising"}
AUTO, NONE = "auto", "none"  # what --against may say besides a model
AT_CHANCE = ("mmlu", "cmmlu", "ceval", "c-eval")


@dataclass(frozen=True)
class SuiteRequest:
    """A suite that is asked for, and where its texts are, if they are not the run's own."""

    name: str
    path: str | None = None

    @classmethod
    def parse(cls, text: str, label: str = "suite") -> SuiteRequest:
        """Read `NAME` or `NAME=PATH`.

        Args:
            label: the setting it is the value of.

        Raises:
            ConfigError: there is no such suite, or it takes no path.
        """
        given, equals, path = text.strip().partition("=")
        name = OTHER_NAMES.get(given.lower(), given.lower())
        if name in AT_CHANCE:
            raise ConfigError(
                f"{label}={given}: a model of 1 to 100M parameters answers {given} by chance, so "
                "its score would tell nothing; tasks, grammar and cloze tell something at this size"
            )
        if name not in SUITES:
            raise ConfigError(
                f"{label}={given!r} is not one of {', '.join(SUITES)}{nearest(given, SUITES)}"
            )
        if equals and not path:
            raise ConfigError(f"{label}={text!r} names no path after =")
        if path and name not in TAKE_A_PATH:
            raise ConfigError(
                f"{label}={text!r}: {name} takes no path; only {', '.join(TAKE_A_PATH)} do"
            )
        return cls(name, path or None)


def suite_requests(
    names: Sequence[str], path: str | None = None, label: str = "suite"
) -> tuple[SuiteRequest, ...]:
    """Read several `NAME` or `NAME=PATH`, each once.

    Args:
        path: for the one among them that takes a path and has none.
        label: the setting they are the value of.

    Raises:
        ConfigError: as `SuiteRequest.parse`; one is asked for twice; or `path` could be for none of
            them, or for several.
    """
    requests = [SuiteRequest.parse(name, label) for name in names]
    for request in requests:
        if sum(other.name == request.name for other in requests) > 1:
            raise ConfigError(f"{label}={request.name} is asked for twice")
    if path is None:
        return tuple(requests)
    open_ = [r.name for r in requests if r.name in TAKE_A_PATH and r.path is None]
    if len(open_) != 1:
        which = f"could be for {' or '.join(open_)}" if open_ else "is for none of the suites"
        raise ConfigError(
            f"suite_path={path!r} {which}: write --suite NAME=PATH (NAME is one of "
            f"{', '.join(TAKE_A_PATH)})"
        )
    return tuple(SuiteRequest(r.name, path if r.name in open_ else r.path) for r in requests)
