"""Shows a result of `jielong inspect` or `plan`: in the terminal, or as a file to keep."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jielong.cli.options import add_language
from jielong.errors import ConfigError

if TYPE_CHECKING:
    from jielong.present.blocks import Page
    from jielong.present.result import Result


def add_show(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a result is shown."""
    group = parser.add_argument_group("how it is shown")
    add_language(group)
    group.add_argument("--html", metavar="FILE", help="write a page that needs no network")
    group.add_argument("--png", metavar="FILE", help="write a picture (needs jielong[plots])")
    group.add_argument("--json", action="store_true", help="print nothing but one JSON object")


def check_show(arguments: argparse.Namespace) -> None:
    """Refuse what `show` could not do, before the result is worked out.

    Raises:
        ConfigError: the language is unknown, a file cannot be written, or matplotlib is missing.
    """
    from jielong.present.words import language_of

    language_of(arguments.lang)
    for name in filter(None, (arguments.html, arguments.png)):
        _writable(name)
    if arguments.png:
        from jielong.present.plotting import require_matplotlib

        require_matplotlib()


def lines_in(language: str, chinese: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return what says a finished line in the language.

    Args:
        language: en, zh or auto.
        chinese: of the lines by their English; default: what runs say, datasets and tokenizers.

    Raises:
        ConfigError: there is no such language.
    """
    from jielong.present.words import language_of

    if language_of(language) == "en":
        return str

    from jielong.observe.chinese import CHINESE
    from jielong.present.finished import in_chinese

    table = CHINESE if chinese is None else chinese
    return lambda line: in_chinese(line, table)


def teller(language: str, on_errors: bool = True) -> Callable[[str], None]:
    """Return what prints a finished line in the language, at once.

    Args:
        on_errors: whether on standard error, else on standard output.
    """
    shown = lines_in(language)

    def tell(line: str) -> None:
        print(shown(line), file=sys.stderr if on_errors else sys.stdout, flush=True)

    return tell


def show(result: Result, arguments: argparse.Namespace) -> int:
    """Show a result as the flags say.

    Raises:
        ConfigError: a picture is wanted and matplotlib is not installed.
    """
    from jielong.present.words import language_of, sayer
    from jielong.runtime.atomic import write_file

    page = result.page(sayer(arguments.lang))
    if arguments.html:
        write_html(page, arguments.html, language_of(arguments.lang))
    if arguments.png:
        from jielong.present.picture import png

        write_file(_writable(arguments.png), png(page))
        warn_of_boxes(page, arguments.lang)
    if arguments.json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
    elif arguments.html or arguments.png:
        for path in filter(None, (arguments.html, arguments.png)):
            print(path)
    else:
        from jielong.present.terminal import print_page

        print_page(page)
    return 0


def warn_of_boxes(page: Page, language: str) -> None:
    """Say so where the picture of a page has boxes in place of Chinese."""
    from jielong.observe.chinese_errors import ERRORS
    from jielong.present.plotting import NO_CHINESE_FONT, lacks_chinese

    if lacks_chinese(page):
        print(lines_in(language, ERRORS)(NO_CHINESE_FONT), file=sys.stderr)


def write_html(page: Page, name: str, language: str = "en") -> None:
    """Write a page as an HTML file.

    Raises:
        ConfigError: `name` is a folder, or in a folder that is not there.
    """
    from jielong.present.html import document
    from jielong.runtime.atomic import write_file

    write_file(_writable(name), document(page, language).encode())


def _writable(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name the file to write")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}: make it, or name another")
    return path
