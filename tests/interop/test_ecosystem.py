"""Other people's tools on our models, with the commands of docs/use-your-model.md."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from interop_models import HARD_STRINGS, LLAMA, QWEN3_MOE, TINY, random_model, some_tokens

from jielong.checkpoint.checkpoint import load_model
from jielong.evaluation.likelihood import evaluate_documents
from jielong.interop.gguf import export_gguf
from jielong.interop.huggingface import export_hf
from jielong.tokenization.tokenizer import Tokenizer

pytestmark = pytest.mark.interop
EXCHANGES = [
    {"prompt": "你好，", "completion": "世界。"},
    {"prompt": "lorem ipsum ", "completion": "dolor sit met"},
]


@pytest.fixture
def published(write_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return export_hf(write_folder(TINY), tmp_path / "published", "float32")


def sft(folder: Path, out_dir: Path, **options: Any) -> Any:
    """Fine-tunes on a few exchanges; returns the trainer."""
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    settings = trl.SFTConfig(
        output_dir=str(out_dir),
        max_steps=12,
        per_device_train_batch_size=2,
        learning_rate=5e-3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    )
    trainer = trl.SFTTrainer(
        model=str(folder),
        args=settings,
        train_dataset=datasets.Dataset.from_list(EXCHANGES * 4),
        **options,
    )
    trainer.train()
    return trainer


def losses(trainer: Any) -> list[float]:
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


def test_trl_fine_tunes_and_jielong_opens_the_result(published: Path, tmp_path: Path) -> None:
    trainer = sft(published, tmp_path / "sft")
    assert losses(trainer)[-1] < losses(trainer)[0] - 1
    trainer.save_model(str(tmp_path / "tuned"))
    tuned, tokenizer = load_model(tmp_path / "tuned")
    ids = torch.tensor([tokenizer.encode("lorem ipsum ")])
    with torch.no_grad():
        expected = trainer.model(ids).logits.float()
        torch.testing.assert_close(tuned(ids).logits, expected, atol=1e-3, rtol=0)


def test_peft_adapter_trains_and_merges_into_a_folder_that_opens(
    published: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = sft(published, tmp_path / "lora", peft_config=lora)
    assert losses(trainer)[-1] < losses(trainer)[0]
    trainer.model.merge_and_unload().save_pretrained(tmp_path / "merged")
    transformers.AutoTokenizer.from_pretrained(published).save_pretrained(tmp_path / "merged")
    load_model(tmp_path / "merged")


def test_lm_eval_measures_the_likelihood_that_jielong_measures(
    published: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    texts = ["lorem ipsum dolor sit", "你好，世界。", "consectur  vinos"]
    documents = tmp_path / "documents.jsonl"
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "my_text.yaml").write_text(
        f"""task: my_text
dataset_path: json
dataset_kwargs:
  data_files:
    test: {documents}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: bits_per_byte
"""
    )
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "my_text"]
    command += ["--model_args", f"pretrained={published},dtype=float32"]
    command += ["--include_path", str(tmp_path), "--device", "cpu", "--batch_size", "1"]
    command += ["--output_path", str(tmp_path / "results")]
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = next((tmp_path / "results").rglob("results*.json"))
    measured = json.loads(result.read_text())["results"]["my_text"]["bits_per_byte,none"]
    model, tokenizer = load_model(published)
    # it predicts the text alone, jielong also the end of it: leave that out
    nats = 0.0
    for text in texts:
        ids = torch.tensor([[1, *tokenizer.encode(text)]])
        with torch.no_grad():
            log_p = model(ids[:, :-1]).logits.log_softmax(-1)
        nats -= float(log_p.gather(-1, ids[:, 1:, None]).sum())
    size = sum(len(text.encode()) for text in texts)
    expected = nats / size / torch.tensor(2.0).log().item()
    assert measured == pytest.approx(expected, rel=1e-3)
    assert evaluate_documents(model, tokenizer, texts, 64).bits_per_byte > expected


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen3moe"])
def test_llama_cpp_gives_the_logits_and_tokens(
    name: str, dtype: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    config = {"llama": LLAMA, "qwen3": TINY, "qwen3moe": QWEN3_MOE}[name]
    config = dataclasses.replace(config, max_position_embeddings=128)
    model = random_model(config)
    path = export_gguf(model, tokenizer, tmp_path, dtype)
    llama = llama_cpp.Llama(str(path), n_ctx=128, logits_all=True, verbose=False, n_threads=1)
    for text in HARD_STRINGS:
        ids = llama.tokenize(text.encode(), add_bos=False, special=True)
        assert ids == tokenizer.encode(text), text
    assert llama.tokenize(b"text")[0] == tokenizer.bos_id
    assert llama.token_eos() == tokenizer.eos_id
    tokens = some_tokens(rows=1)
    llama.eval(tokens[0].tolist())
    with torch.no_grad():
        expected = model(tokens).logits[0]
    logits = torch.tensor(llama.scores[: tokens.shape[1]])
    # its CPU kernels and its key-value cache work in half precision
    tolerance = 0.03 if dtype == "f32" else 0.3
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)
