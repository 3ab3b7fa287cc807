"""Follows the links of a built site."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The names that a page can be linked to by, and what it links to itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def has(self, fragment: str) -> bool:
        """Whether there is a place of that name."""
        return unquote(fragment) in self.names

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.names.add(value)
            elif name in ("href", "src"):
                self.links.add(value)


def broken_links(site: Path) -> list[str]:
    """Return a line for each link within a site to a page, picture or place that is not there."""
    pages = {path: _Page(path) for path in site.rglob("*.html")}
    wrong = []
    for path, page in sorted(pages.items()):
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir() or not target.exists():
                wrong.append(f"{path.relative_to(site)}: {link}: there is no such page")
            elif parts.fragment and target in pages and not pages[target].has(parts.fragment):
                wrong.append(f"{path.relative_to(site)}: {link}: there is no such place")
    return wrong
