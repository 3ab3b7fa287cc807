"""Exporting a model for publication: half precision, a model card, upload to the Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from jielong.checkpoint.checkpoint import find_model_folder, open_model
from jielong.checkpoint.folder import model_type_of, write_model_config
from jielong.checkpoint.model_files import write_model_files
from jielong.checkpoint.weights import named_weights, skeleton_for
from jielong.config.model import ModelConfig
from jielong.errors import CheckpointError, ConfigError
from jielong.interop.output import new_folder
from jielong.model.transformer import Transformer
from jielong.tokenization.agreement import disagreement

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SETTINGS = (  # settings of a run that the model card lists
    ("training", "optimizer"),
    ("training", "learning_rate"),
    ("training", "schedule"),
    ("training", "weight_decay"),
    ("training", "global_batch_size"),
    ("data", "max_seq_len"),
    ("training", "seed"),
)


def export_hf(
    checkpoint: str | Path,
    out_dir: str | Path,
    dtype: str = "bfloat16",
    license: str | None = None,
    push_to_hub: str | None = None,
) -> Path:
    """Write a Hugging Face model folder without training state, and a model card.

    Args:
        checkpoint: a run, a checkpoint or any model folder.
        out_dir: a new folder; it appears only once it is complete.
        dtype: "float32", "bfloat16" or "float16".
        license: an identifier for the card, such as "apache-2.0".
        push_to_hub: the repository "user/name" to upload the folder to.

    Raises:
        CheckpointError: there is no valid model, transformers has no class for its architecture or
            would split text otherwise (checked where it is installed), or the upload fails (the
            folder is then kept).
        ConfigError: dtype, license or repository name are invalid, or huggingface_hub is missing.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise ConfigError(f"license {license!r} is not an identifier such as apache-2.0 or mit")
    if push_to_hub is not None:
        _hub(push_to_hub)
    source = find_model_folder(checkpoint)
    config, tokenizer, tensors = open_model(source)
    if reason := unsupported_by_transformers(config):
        raise CheckpointError(f"{source}: transformers cannot open this model: {reason}")
    model = skeleton_for(config, tensors, str(source))  # the weights are read one by one
    out_dir = Path(out_dir)
    with new_folder(out_dir) as folder:
        write_model_config(folder, config, tokenizer, DTYPES[dtype])
        write_model_files(folder, named_weights(model), tensors, DTYPES[dtype], str(source))
        tokenizer.save(folder)
        if differs := disagreement(folder, tokenizer):
            raise CheckpointError(f"{source}: its text would be split otherwise: {differs}")
        card = model_card(model, out_dir.name, dtype, _training_record(source), license)
        (folder / "README.md").write_text(card, encoding="utf-8")
    if push_to_hub is not None:
        _push(out_dir, push_to_hub)
    return out_dir


def unsupported_by_transformers(config: ModelConfig) -> str | None:
    """Return why transformers has no class for this architecture; None if it has one."""
    if model_type_of(config) != "jielong_moe":
        return None
    if not config.qk_norm:
        return "Llama has no experts, and Qwen3-MoE always has QK-norm"
    if config.num_shared_experts:
        return "Qwen3-MoE has no shared experts"
    return "Qwen3-MoE's router has no balancing bias (router_aux_loss = bias)"


def model_card(
    model: Transformer, name: str, dtype: str, record: dict[str, Any], license: str | None
) -> str:
    """Return README.md of a published model, written from its training state.

    Args:
        record: `training_state.json`; empty for a model that was not trained with jielong.
    """
    front = ["---"]
    if license is not None:
        front.append(f"license: {license}")
    front += ["library_name: transformers", "pipeline_tag: text-generation", "tags:", "- jielong"]
    text = [*front, "---", "", f"# {name}", "", _description(model, dtype), ""]
    if record:
        text += ["## Training", "", "| | |", "|-|-|", *_training_rows(record), ""]
    text += ["## Use", "", _use(name), "", "## License", ""]
    text.append(license or "None is stated: ask the author before you use the model.")
    return "\n".join(text) + "\n"


def _description(model: Transformer, dtype: str) -> str:
    c = model.config
    kind = "Qwen3-MoE" if c.use_moe else "Qwen3" if c.qk_norm else "Llama"
    experts = f", {c.num_experts} experts ({c.num_experts_per_tok} per token)" if c.use_moe else ""
    return (
        f"A language model of {model.num_parameters():,} parameters ({kind}: "
        f"{c.num_hidden_layers} layers, hidden size {c.hidden_size}{experts}, vocabulary "
        f"{c.vocab_size:,}, context {c.max_position_embeddings:,}; weights in {dtype}), pretrained "
        "from scratch with jielong. It continues text; it was not trained to follow instructions "
        "or to avoid false or harmful statements."
    )


def _training_rows(record: dict[str, Any]) -> list[str]:
    config, progress = record.get("config", {}), record.get("progress", {})
    rows: list[tuple[str, Any]] = []
    if paths := config.get("data", {}).get("data_path"):
        # names only: paths on the author's disk are private
        rows.append(("data", ", ".join(Path(path).name for path in paths)))
    rows += [("steps", record.get("step")), ("tokens seen", progress.get("tokens"))]
    if isinstance(validation := progress.get("validation"), dict):
        rows.append(("held-out loss (nats per token)", validation.get("loss")))
        rows.append(("held-out perplexity", validation.get("perplexity")))
        rows.append(("held-out bits per byte", validation.get("bits_per_byte")))
    rows.append(("peak learning rate", record.get("peak_learning_rate")))
    for section, field in SETTINGS:
        if field != "learning_rate" or record.get("peak_learning_rate") is None:
            rows.append((field, config.get(section, {}).get(field)))
    rows.append(("torch", record.get("torch")))
    return [f"| {name} | {_shown(value)} |" for name, value in rows if value is not None]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _use(name: str) -> str:
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
prompt = (tokenizer.bos_token or "") + "Once upon a time"
inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
output = model.generate(**inputs, max_new_tokens=100)
print(tokenizer.decode(output[0], skip_special_tokens=True))
```

In training every text began with the bos token, so begin each prompt with it."""


def _training_record(folder: Path) -> dict[str, Any]:
    """Load training_state.json; empty if the model was not trained with jielong."""
    path = folder / "training_state.json"
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise CheckpointError(f"{path}: damaged") from None
    return record if isinstance(record, dict) else {}


def _hub(repository: str) -> Any:
    """Return huggingface_hub's client; check that it is installed and the name is valid."""
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            "--push-to-hub needs huggingface_hub: pip install 'jielong[hub]'"
        ) from None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ConfigError(f"push_to_hub={repository!r} is not of the form user/name")
    return huggingface_hub.HfApi()


def _push(folder: Path, repository: str) -> None:
    api = _hub(repository)
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload model")
    except Exception as error:  # its own errors and those of its network layer
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder} was written, but could not be uploaded to {repository}: {reason}; "
            "log in with `hf auth login`, or upload it with `hf upload`"
        ) from None
