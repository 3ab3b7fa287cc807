"""Train, load, continue and measure: the functions of `jielong` that have a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jielong.checkpoint.checkpoint import find_model_folder, load_model
from jielong.config.engine import Engine
from jielong.config.load import load_config
from jielong.config.sampling import make_sampling
from jielong.config.settings import Config
from jielong.evaluation.likelihood import evaluate_documents
from jielong.evaluation.sums import Likelihood
from jielong.generation.generate import TextGenerator
from jielong.insight.subject import config_of
from jielong.model.transformer import Transformer, context_length
from jielong.runtime.device import choose_device
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.on_ray import pretrain_on_ray
from jielong.training.pretrain import pretrain as train
from jielong.training.result import RunResult


def load(
    run_or_checkpoint: str | Path, device: str = "auto", checkpoint: str = "best"
) -> tuple[Transformer, Tokenizer]:
    """A trained model, in eval mode, and its tokenizer.

    Args:
        run_or_checkpoint: a run's folder, a checkpoint, or any Hugging Face folder of a Llama or
            Qwen3 model.
        device: auto, cpu, cuda or mps.
        checkpoint: of a run: best (by held-out loss), last or a step.

    Returns:
        `model, tokenizer`: `model(tokens).logits` is (B, T, vocabulary) for tokens (B, T), and
        `tokenizer.encode(text)` gives ids, without bos.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ConfigError: the device is not there.
    """
    model, tokenizer = load_model(find_model_folder(run_or_checkpoint, checkpoint))
    return model.to(choose_device(device)), tokenizer


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 256,
    stop: Sequence[str] = (),
    **sampling: Any,
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece as it comes; ends where the text ends.

    Args:
        model, tokenizer: as `load` gives them.
        prompt: the text to continue; may be empty.
        max_new_tokens: most tokens to write.
        stop: texts before the first of which to stop.
        **sampling: temperature, top_k, top_p, min_p, repetition_penalty, seed.

    A `TextGenerator` does the same for many texts, and packs the weights once for all of them.

    Yields:
        Text without the prompt; a character that takes several tokens comes whole.

    Raises:
        ConfigError: a sampling value is unknown or out of bounds.
    """
    generator = TextGenerator(model, tokenizer)
    return generator.stream(prompt, max_new_tokens, make_sampling(**sampling), stop=stop)


def pretrain(
    config: Config | Mapping[str, Any] | str | Path,
    override: bool = False,
    quiet: bool = False,
    verify: bool = False,
    language: str = "auto",
    engine: str = "local",
    ray_address: str | None = None,
    ray_workers: int = 1,
) -> RunResult:
    """Pretrain a model, or go on where the run stopped: what `jielong pretrain` does.

    Args:
        config: a mapping of settings by name, with `preset` if you like (e.g. `{"preset": "tiny",
            "data_path": "mine.jsonl", "out_dir": "runs/mine"}`), a TOML file, or a Config.
        override: resume although settings changed that alter the result.
        quiet: print nothing.
        verify: read the whole dataset and compare its SHA-256, also if it seems unchanged.
        language: of what is printed: en, zh, or auto, the locale's.
        engine: local, or ray.
        ray_address, ray_workers: a cluster, else Ray is started here; the processes on it.

    Returns:
        Folder, best checkpoint, steps, and held-out likelihood of the run.

    Raises:
        JielongError: in plain words, what is wrong with settings, data or checkpoints.
    """
    config = load_config(file=config) if isinstance(config, str | Path) else config_of(config)
    if (where := Engine.of(engine, ray_address)).is_ray:
        return pretrain_on_ray(config, where, ray_workers, override, quiet, verify, language)
    return train(config, override, quiet, verify, language)


def evaluate(
    model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], batch_tokens: int = 8192
) -> Likelihood:
    """How well the model predicts texts: loss (nats a token), perplexity and bits per byte.

    Each text is a document of its own; one longer than the context is cut into windows without
    overlap. Every byte of the texts counts.

    Args:
        model, tokenizer: as `load` gives them.
        texts: each is read once.
        batch_tokens: about as many tokens are in a forward pass, as rows of (B, T).

    Returns:
        Loss, perplexity, bits per byte with a standard error, tokens, bytes and seconds.

    Raises:
        DataError: there is no text.
    """
    return evaluate_documents(model, tokenizer, texts, context_length(model.config), batch_tokens)
