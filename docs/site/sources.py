"""Pages of the site that show a file of the repository, line by line."""

import inspect
import sys
from importlib import import_module
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

ROOT = Path(__file__).resolve().parents[2]


def page_of(file: str) -> str:
    """Return the name, without a suffix, of the page that shows a file."""
    return f"source/{file}"


def source_page(file: str) -> str:
    """Return a page in Markdown with the lines of a file, each of which can be linked to."""
    text = (ROOT / file).read_text(encoding="utf-8")
    try:
        lexer = get_lexer_for_filename(file)
    except ClassNotFound:
        lexer = TextLexer()
    lines = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True)
    code = highlight(text, lexer, lines)
    return (
        f"---\norphan: true\nnosearch: true\n---\n# {file}\n\n~~~~~~{{raw}} html\n{code}\n~~~~~~\n"
    )


def anchor_of(module: str, name: str) -> str | None:
    """Return the page and line where a name of a module is defined; None if it is only a value."""
    found = import_module(module)
    try:
        for part in name.split("."):
            found = getattr(found, part)
        file = inspect.getsourcefile(inspect.unwrap(found))
        line = inspect.getsourcelines(inspect.unwrap(found))[1]
    except (AttributeError, TypeError):  # e.g. a field of a dataclass
        return None
    path = Path(file or "").resolve()
    if not path.is_relative_to(ROOT):
        return None
    return f"{page_of(path.relative_to(ROOT).as_posix())}.html#L-{line}"


def files_of(module: str, names: list[str]) -> set[str]:
    """Return the files of the repository in which these names of a module are defined."""
    places = [anchor_of(module, name) for name in names]
    return {p.partition(".html#")[0].removeprefix("source/") for p in places if p}


sys.path.insert(0, str(ROOT / "src"))
