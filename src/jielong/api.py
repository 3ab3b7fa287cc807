"""jielong from Python: these names, and nothing else is public."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jielong.checkpoint import checkpoint
from jielong.config.load import load_config
from jielong.config.sampling import make_sampling
from jielong.config.settings import Config
from jielong.evaluation.likelihood import Likelihood, evaluate_documents
from jielong.generation.generate import TextGenerator
from jielong.model.transformer import Transformer, context_length
from jielong.runtime.device import choose_device
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.pretrain import RunResult
from jielong.training.pretrain import pretrain as train

__all__ = ["TextGenerator", "evaluate", "generate", "load", "pretrain"]


def load(run_or_checkpoint: str | Path, device: str = "auto") -> tuple[Transformer, Tokenizer]:
    """A trained model, in eval mode, and its tokenizer.

    Args:
        run_or_checkpoint: a run's folder (its newest valid checkpoint is taken), a checkpoint, or
            any Hugging Face folder of a Llama or Qwen3 model.
        device: auto, cpu, cuda or mps.

    Returns:
        `model, tokenizer`: `model(tokens).logits` is (B, T, vocabulary) for tokens (B, T), and
        `tokenizer.encode(text)` gives ids, without bos.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ConfigError: the device is not there.
    """
    folder = checkpoint.find_model_folder(run_or_checkpoint)
    model, tokenizer = checkpoint.load_model(folder)
    return model.to(choose_device(device)), tokenizer


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 256,
    **sampling: Any,
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece as it comes; ends where the text ends.

    Args:
        model, tokenizer: as `load` gives them.
        prompt: the text to continue; may be empty.
        max_new_tokens: most tokens to write.
        **sampling: temperature, top_k, top_p, min_p, repetition_penalty, seed.

    A `TextGenerator` does the same for many texts, and packs the weights once for all of them.

    Raises:
        ConfigError: a sampling value is unknown or out of bounds.
    """
    generator = TextGenerator(model, tokenizer)
    return generator.stream(prompt, max_new_tokens, make_sampling(**sampling))


def pretrain(
    config: Config | Mapping[str, Any] | str | Path,
    override: bool = False,
    quiet: bool = False,
    verify: bool = False,
) -> RunResult:
    """Pretrains a model, or goes on where the run stopped: what `jielong pretrain` does.

    Args:
        config: a mapping of settings by name, with `preset` if you like (e.g. `{"preset": "tiny",
            "data_path": "mine.jsonl", "out_dir": "runs/mine"}`), a TOML file, or a Config.
        override: resume although settings changed that alter the result.
        quiet: print nothing.
        verify: read the whole dataset and compare its SHA-256, also if it seems unchanged.

    Returns:
        Folder, newest checkpoint, steps, and held-out likelihood of the run.

    Raises:
        JielongError: in plain words, what is wrong with settings, data or checkpoints.
    """
    if isinstance(config, Mapping):
        config = load_config(**config)
    elif not isinstance(config, Config):
        config = load_config(file=config)
    return train(config, override, quiet, verify)


def evaluate(
    model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], batch_tokens: int = 8192
) -> Likelihood:
    """How well the model predicts texts: loss (nats a token), perplexity and bits per byte.

    Each text is a document of its own; one longer than the context is cut into windows without
    overlap. Every byte of the texts counts.

    Args:
        batch_tokens: about as many tokens are in a forward pass.

    Raises:
        DataError: there is no text.
    """
    return evaluate_documents(model, tokenizer, texts, context_length(model.config), batch_tokens)
