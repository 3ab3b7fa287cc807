"""Follows the links of a built site, and finds what its pages would load from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The names that a page can be linked to by, and what it links to itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()  # addresses elsewhere of scripts, styles, pictures and frames
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
                if (name == "src" or tag == "link") and urlsplit(value).netloc:
                    self.loaded.add(value)

    def handle_data(self, data: str) -> None:
        if self.lasttag in ("script", "style"):  # modules and styles that import others
            self.loaded.update(
                re.findall(r"""(?:import|from|url)\b[\s("']*(https?://[^\s"')]+)""", data)
            )


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


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Return a line for each thing that a page would load over a network."""
    return [
        f"{path.relative_to(site)}: {address}: is loaded from elsewhere, so it is missing offline"
        for path in sorted(site.rglob("*.html"))
        for address in sorted(_Page(path).loaded)
    ]
