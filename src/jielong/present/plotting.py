"""What drawing with matplotlib needs of a machine: the library itself, and fonts."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from jielong.errors import ConfigError
from jielong.present.blocks import Page

if TYPE_CHECKING:
    from matplotlib.font_manager import FontManager

# what Chinese can be written with, on Linux, macOS and Windows
CHINESE_FONTS = (
    *("Noto Sans Mono CJK SC", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei Mono", "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans GB"),
    *("Heiti SC", "Microsoft YaHei", "SimHei"),
)
NO_CHINESE_FONT = (
    "no font of this machine has Chinese, so the picture shows boxes instead: install one (Noto "
    "Sans CJK, say), or use --html"
)
NO_MATPLOTLIB = (
    "pictures need matplotlib: pip install 'jielong[plots]'; text in the terminal and --json do "
    "without"
)


def require_matplotlib() -> None:
    """Refuse to draw without it.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError(NO_MATPLOTLIB) from None


def lacks_chinese(page: Page) -> bool:
    """Whether a page has Chinese, and no font of this machine can write it in a picture."""
    return any("\u2e80" <= char <= "\u9fff" for char in repr(page)) and len(fonts()) == 1


@functools.cache
def fonts() -> list[str]:
    """The fonts of this machine to write with: monospaced, and one for Chinese if there is any."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {font.fname for font in manager.ttflist}
    if not (chinese := _chinese_font(manager)):  # its list is kept, also when a font is installed
        for path in sorted(set(font_manager.findSystemFonts()) - known):
            with contextlib.suppress(OSError, RuntimeError):  # no font that it can read
                manager.addfont(path)
        chinese = _chinese_font(manager)
    return ["DejaVu Sans Mono", *([chinese] if chinese else [])]


def _chinese_font(manager: FontManager) -> str | None:
    there = {font.name for font in manager.ttflist}
    return next((name for name in CHINESE_FONTS if name in there), None)
