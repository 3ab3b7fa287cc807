"""jielong (接龙): pretrain a small language model from scratch on your own text."""

from jielong.api import evaluate, generate, load, pretrain

__all__ = ["evaluate", "generate", "load", "pretrain"]
__version__ = "0.1.0"
