"""jielong (接龙): pretrain a small language model from scratch on your own text."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jielong.api import TextGenerator, evaluate, generate, load, pretrain

__all__ = ["TextGenerator", "evaluate", "generate", "load", "pretrain"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports torch only when something is asked for: `jielong --help` should not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'jielong' has no attribute {name!r}")
    from jielong import api

    return getattr(api, name)
