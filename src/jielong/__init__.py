"""jielong (接龙): pretrain a small language model from scratch on your own text."""

import os
from typing import TYPE_CHECKING, Any

# Threads that wait for each other spin for long by default, and on cores that are not theirs alone
# that takes most of the time (docs/experiments.md). OpenMP reads it when torch is first imported.
if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "1000"

if TYPE_CHECKING:
    from jielong.api import (
        TextGenerator,
        clean,
        evaluate,
        evaluate_suites,
        export,
        generate,
        import_minimind,
        inspect_attention,
        inspect_data,
        inspect_embeddings,
        inspect_experts,
        inspect_layers,
        inspect_model,
        inspect_predictions,
        inspect_schedule,
        inspect_tokenizer,
        load,
        plan,
        prepare,
        prepare_mixture,
        pretrain,
        report,
        runs,
        train_tokenizer,
    )

__all__ = [
    "TextGenerator",
    "clean",
    "evaluate",
    "evaluate_suites",
    "export",
    "generate",
    "import_minimind",
    "inspect_attention",
    "inspect_data",
    "inspect_embeddings",
    "inspect_experts",
    "inspect_layers",
    "inspect_model",
    "inspect_predictions",
    "inspect_schedule",
    "inspect_tokenizer",
    "load",
    "plan",
    "prepare",
    "prepare_mixture",
    "pretrain",
    "report",
    "runs",
    "train_tokenizer",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that `jielong --help` does not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'jielong' has no attribute {name!r}")
    from jielong import api

    return getattr(api, name)
