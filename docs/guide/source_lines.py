"""Links of the guide to lines of the source, and the lines themselves, as they are now.

    [`Windows.row`](../../../src/jielong/data/windows.py)       gets the line of that definition

    <!-- source: src/jielong/data/windows.py Windows.row: T = … return -->

Below such a mark stand, with a link, the lines of that definition from the first with the first
words to the next with the last ones. Without last words it is one line.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UP = "../../../"  # from a page to the repository
LINK = re.compile(
    r"\[`(?P<name>[\w.]+)`\]\((?P<path>(?:\.\./)+(?P<file>src/jielong/[\w/]+\.py))(?:#L\d+)?\)"
)
LINES = re.compile(
    r"^(?P<mark><!-- source: (?P<file>\S+) (?P<name>[\w.]+): (?P<first>[^\n]+?)"
    r"(?: … (?P<last>[^\n]+?))? -->)\n(?:\[`[^\n]*\n\n```py\n.*?^```\n)?",
    re.MULTILINE | re.DOTALL,
)


def with_lines(text: str) -> str:
    """Return a page whose links and quotations of the source are those of the source now.

    Raises:
        LookupError: the source has no such name, or no such lines.
    """
    return LINES.sub(_quoted, LINK.sub(_linked, text))


def line_of(file: Path, name: str) -> int:
    """Return the line where a class, function, method or constant of a module is defined.

    Raises:
        LookupError: the module has none of that name.
    """
    return _definition(file, name).lineno


def _definition(file: Path, name: str) -> ast.stmt:
    body: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    found: ast.stmt | None = None
    for part in name.split("."):
        found = next((node for node in body if _defines(node, part)), None)
        if found is None:
            break
        body = getattr(found, "body", [])
    if found is None:
        raise LookupError(f"{file} has no {name}")
    return found


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return node.name == name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _linked(found: re.Match[str]) -> str:
    line = line_of(ROOT / found["file"], found["name"])
    return f"[`{found['name']}`]({found['path']}#L{line})"


def _quoted(found: re.Match[str]) -> str:
    file = ROOT / found["file"]
    node = _definition(file, found["name"])
    lines = file.read_text(encoding="utf-8").splitlines()
    first = _line_with(found["first"], lines, node.lineno, node, found["mark"])
    last = _line_with(found["last"] or found["first"], lines, first, node, found["mark"])
    code = textwrap.dedent("\n".join(lines[first - 1 : last]))
    place = f"{first}" if last == first else f"{first}-{last}"
    anchor = f"L{first}" if last == first else f"L{first}-L{last}"
    link = f"[`{file.name}:{place}`]({UP}{found['file']}#{anchor})"
    return f"{found['mark']}\n{link}\n\n```py\n{code}\n```\n"


def _line_with(words: str, lines: list[str], start: int, node: ast.stmt, mark: str) -> int:
    for number in range(start, (node.end_lineno or start) + 1):
        if words in lines[number - 1]:
            return number
    raise LookupError(f"no line of the source has {words!r}: {mark}")
