"""jielong from Python: these names, and nothing else is public."""

from jielong.api.models import evaluate, generate, load, pretrain
from jielong.api.texts import clean, prepare, prepare_mixture, train_tokenizer
from jielong.generation.generate import TextGenerator
from jielong.insight.attention import inspect_attention
from jielong.insight.data import inspect_data
from jielong.insight.embeddings import inspect_embeddings
from jielong.insight.experts import inspect_experts
from jielong.insight.layers import inspect_layers
from jielong.insight.model import inspect_model
from jielong.insight.planning import plan
from jielong.insight.predictions import inspect_predictions
from jielong.insight.schedule import inspect_schedule
from jielong.insight.tokenizer import inspect_tokenizer
from jielong.interop.export import export
from jielong.interop.minimind import import_minimind
from jielong.reports.results import list_runs as runs
from jielong.reports.results import read_report as report
from jielong.training.suites import evaluate_suites

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
