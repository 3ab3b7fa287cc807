"""Settings of the documentation site; docs/site/make.py calls Sphinx with them."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from search import SearchEnglishAndChinese
from sources import anchor_of

project = "jielong"
author = "the contributors of jielong"
version = release = version_of("jielong")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
]
source_suffix = {".md": "markdown"}
root_doc = "index"

smartquotes = False  # it makes a dash of the two hyphens of a flag
default_role = "code"  # docstrings put code between single backticks, as Markdown does

myst_heading_anchors = 4  # as GitHub names them

autodoc_typehints = "signature"
napoleon_use_ivar = True  # else a field called bytes would be what the type bytes links to
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
autodoc_preserve_defaults = True
add_module_names = False

html_theme = "furo"
html_title = "jielong 接龙"
html_static_path: list[str] = []
html_show_sphinx = html_show_copyright = False
html_copy_source = False
html_theme_options = {"footer_icons": []}


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the page that shows the source of a function; API pages lie one folder deep."""
    place = anchor_of(info["module"], info["fullname"]) if info["module"] else None
    return f"../{place}" if place else None


def set_language(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Say of the Chinese pages, for browsers and screen readers, that they are Chinese."""
    context["language"] = "zh-CN" if page.endswith("zh-CN") or "/zh/" in page else "en"


def setup(app: Any) -> None:
    """Register what this folder adds to Sphinx."""
    app.add_search_language(SearchEnglishAndChinese)
    app.connect("html-page-context", set_language)
