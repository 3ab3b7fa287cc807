"""The command line: what it accepts, and that a mistake is one line and never a traceback."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from jielong.checkpoint.checkpoint import write_model_folder
from jielong.cli.main import main, parse
from jielong.cli.options import field_values
from jielong.config.aliases import BATCH_ALIASES
from jielong.config.hints import ADVICE, OTHER_NAMES
from jielong.config.load import load_config
from jielong.config.sampling import Sampling
from jielong.config.settings import FIELDS, Config
from jielong.tokenization.tokenizer import Tokenizer
from tiny import TINY_RUN, environment, flags, tiny_model


def config_of(*words: str) -> Config:
    arguments = parse(["pretrain", *words])
    return load_config(arguments.preset, arguments.config, **field_values(arguments))


@pytest.mark.parametrize(
    "words",
    [
        ["--hidden-size", "64", "--learning-rate", "1e-3"],
        ["--hidden_size", "64", "--learning_rate", "1e-3"],
        ["--hidden-size=64", "--learning_rate=1e-3"],
    ],
)
def test_dashes_and_underscores_are_alike(words: list[str]) -> None:
    config = config_of(*words)
    assert (config.model.hidden_size, config.training.learning_rate) == (64, 1e-3)


def test_underscores_in_values_stay() -> None:
    config = config_of("--text_field", "my_text", "--data_path=some_file.jsonl")
    assert config.data.text_field == "my_text"
    assert config.data.data_path == ("some_file.jsonl",)
    assert config_of("--data-path", "a_b", "c-d").data.data_path == ("a_b", "c-d")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--use_moe"], True),
        (["--use-moe", "--steps", "3"], True),
        (["--use_moe", "true"], True),
        (["--use_moe=1"], True),
        (["--use_moe", "False"], False),
        (["--use-moe", "0"], False),
        ([], False),
    ],
)
def test_booleans_are_booleans(words: list[str], value: bool) -> None:
    assert config_of(*words).model.use_moe is value


def test_names_of_the_seed_script_are_taken_as_its_users_write_them() -> None:
    line = """--epochs 2 --batch_size 8 --learning_rate 5e-4 --accumulation_steps 8 --grad_clip 1.0
        --warmup_iters 10 --log_interval 100 --save_interval 100 --num_workers 1 --max_seq_len 340
        --num_hidden_layers 8 --hidden_size 512 --use_moe False --dtype bfloat16 --device cpu
        --out_dir out --data_path a.jsonl"""
    config = config_of(*line.split())
    assert config.training.warmup_steps == 10
    assert (config.training.global_batch_size, config.training.micro_batch_size) == (64, 8)
    assert config.run.save_interval == 100 and not config.model.use_moe


def test_help_lists_every_setting_with_its_type_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--help"])
    assert end.value.code == 0
    entries = re.split(r"\n  (?=-)", capsys.readouterr().out)
    for name, spec in FIELDS.items():
        flag = "--" + name.replace("_", "-")
        found = [" ".join(e.split()) for e in entries if re.match(rf"{flag}[ ,]", e)]
        assert len(found) == 1, flag
        kinds = {"bool": "BOOL", "list of str": "TEXT"}
        kind = kinds.get(spec.type_name, spec.type_name.upper().replace(" OR ", "|"))
        assert kind in found[0], flag
        default = "" if spec.default in (None, ()) else str(spec.default).lower()
        assert f"default {default}".strip() in found[0].lower(), flag


OTHERS = {  # flags of nanoGPT, litgpt, the transformers Trainer, MiniMind and llama.cpp
    "--lr": "--learning-rate",
    "--block-size": "--max-seq-len",
    "--n_embd": "--hidden-size",
    "--n-layer=4": "--num-hidden-layers",
    "--n-head": "--num-attention-heads",
    "--max-iters": "--steps",
    "--train.max_tokens": "--tokens",
    "--train.micro_batch_size": "--micro-batch-size",
    "--num-train-epochs": "--epochs",
    "--per_device_train_batch_size": "--batch-size",
    "--gradient-accumulation-steps": "--accumulation-steps",
    "--max_grad_norm": "--grad-clip",
    "--lr_scheduler_type": "--schedule",
    "--output_dir": "--out-dir",
    "--model_name_or_path": "--init-from",
    "--context-length": "--max-seq-len",
    "--train-file": "--data-path",
    "--from_weight": "--init-from",
    "--resume": "resumed by the same command",
    "--gpus": "torchrun",
    "--dropuot": "did you mean --dropout?",
}


@pytest.mark.parametrize("flag", OTHERS)
def test_a_flag_of_another_program_is_told_its_name_here(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", flag, "3"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and OTHERS[flag] in said


@pytest.mark.parametrize("line", ["pretrain --zzz 3", "pretrain -q", "generate x --lr 3"])
def test_no_flag_is_suggested_where_none_is_near(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert "unknown flag" in said and "did you mean" not in said and " here" not in said


def test_every_hint_names_a_setting_that_there_is_and_no_setting_of_ours() -> None:
    generate = {"max_new_tokens", "num_samples", "stop", "preset"} | {
        f.name for f in dataclasses.fields(Sampling)
    }
    known = FIELDS.keys() | BATCH_ALIASES.keys() | generate
    assert OTHER_NAMES.keys() <= known
    others = {name for names in (*OTHER_NAMES.values(), *ADVICE.values()) for name in names.split()}
    assert not others & known


MISTAKES = {
    "pretrain --hiden-size 3": ["--hiden-size", "did you mean --hidden-size"],
    "pretrain --hidden-size wide": ["model.hidden_size", "'wide'"],
    "pretrain --hidden-size": ["--hidden-size"],
    "pretrain --preset smal": ["'smal'", "did you mean small"],
    "pretrain --config nowhere.toml": ["nowhere.toml"],
    "pretrain --use-moe maybe": ["model.use_moe"],
    "pretrain --num-key-value-heads 3": ["num_key_value_heads"],
    "pretrain --steps 5 --tokens 5 --data-path a": ["tokens", "steps"],
    "pretrain --preset tiny": ["data.data_path", "sample:shakespeare"],
    "pretrain --preset tiny --data-path corpus.jsnol": ["corpus.jsnol", "corpus.jsonl"],
    "pretrain --preset tiny --data-path empty.jsonl": ["text"],
    "pretrain --preset tiny --data-path corpus.jsonl --text-field story": [
        "corpus.jsonl:1",
        "fields seen: text",
    ],
    "pretrain --preset tiny --data-path corpus.jsonl --out-dir corpus.jsonl": ["run.out_dir"],
    "pretrain --preset tiny --data-path corpus.jsonl --tokenizer nowhere": ["nowhere"],
    "pretrain --preset tiny --data-path corpus.jsonl --dtype float16 --device cpu": ["dtype"],
    "pretrain --preset tiny --data-path corpus.jsonl --init-from nowhere": ["nowhere"],
    "tokenizer --out-dir out": ["data.data_path"],
    "tokenizer --data-path corpus.jsonl": ["--out-dir"],
    "tokenizer --data-path corpus.jsonl --vocab-size 10 --out-dir out": ["model.vocab_size", "259"],
    "tokenizer --data-path corpus.jsonl --vocab-size 300 --out-dir corpus.jsonl/x": ["corpus"],
    "prepare --data-path corpus.jsonl --out-dir out": ["data.tokenizer"],
    "prepare --data-path corpus.jsonl --tokenizer nowhere --out-dir out": ["nowhere"],
    "generate": ["RUN_OR_CHECKPOINT"],
    "generate nowhere": ["nowhere"],
    "generate nowhere --num-samples 0": ["num_samples"],
    "generate nowhere --top-p x": ["--top-p"],
    "evaluate nowhere": ["nowhere: no such folder"],
    "evaluate nowhere --data-path corpus.jsonl": ["nowhere"],
    "pretrain corpus.jsonl": ["'corpus.jsonl'", "--data-path corpus.jsonl"],
    "pretrain corpsu.jsonl": ["'corpsu.jsonl'", "quote"],
    "pretrian": ["did you mean pretrain?"],
    "train --data-path corpus.jsonl": ["did you mean pretrain?"],
    "eval": ["did you mean evaluate?"],
    "frobnicate": ["'frobnicate'; there are: pretrain, plan"],
    "pretrain --data-path corpus.jsonl --steps -1": ["training.steps"],
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_exit_status_2(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text('{"text": "one two three"}\n')
    Path("empty.jsonl").write_text("")
    before = sorted(tmp_path.iterdir())
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    for word in MISTAKES[line]:
        assert word in said
    assert sorted(tmp_path.iterdir()) == before


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "train a model, with every stage that is missing" in capsys.readouterr().out


def test_a_command_line_that_was_wrong_can_be_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run folder that the first try made is gone again, and holds the second to nothing."""
    monkeypatch.chdir(tmp_path)
    command = ["pretrain", "--preset", "tiny", "--out-dir", "mine", "--data-path"]
    assert main([*command, "typo.jsonl"]) == 2
    assert not Path("mine").exists()
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("the user's own")
    assert main([*command, "typo.jsonl"]) == 2
    assert Path("mine/notes.txt").exists()
    Path("empty.txt").write_text("")
    assert main([*command, "empty.txt"]) == 2
    said = capsys.readouterr().err
    assert "other settings" not in said and "text" in said.splitlines()[-1]


def test_debug_shows_the_traceback_before_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "nowhere", "--debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and "find_model_folder" in said
    assert said.splitlines()[-1].startswith("error: nowhere")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.split() == ["jielong", version("jielong")]


def test_piped_lines_are_continued_one_by_one(
    tmp_path: Path,
    corpus_file: Path,
    tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"data_path": corpus_file, "tokenizer": tokenizer_dir, "steps": 1}
    assert main(["pretrain", *flags(TINY_RUN | settings | {"out_dir": tmp_path / "run"})]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("one \n\nthree"))
    assert main(["generate", str(tmp_path / "run"), "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == "one \nthree\n"
    assert main(["generate", str(tmp_path / "run"), "--prompt", "x", "--top-p", "2"]) == 2
    assert capsys.readouterr().out == ""  # a mistake comes alone


def test_help_of_generate_names_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    said = " ".join(capsys.readouterr().out.split("options:")[1].split())
    for field in dataclasses.fields(Sampling):
        about = said.split(f"--{field.name.replace('_', '-')} {field.name.upper()} ")[1]
        if field.name != "seed":
            assert f"(default {field.default})" in about.split(" --")[0], about


def test_generate_stops_before_the_texts_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_model_folder(tmp_path, tiny_model(vocab_size=tokenizer.vocab_size), tokenizer)
    words = ["generate", str(tmp_path), "--prompt", "Tale", "--seed", "1", "--temperature", "1"]
    assert main(words) == 0
    whole = capsys.readouterr().out.removeprefix("Tale")
    middle = whole[len(whole) // 2]
    assert main([*words, "--stop", "nowhere", middle]) == 0
    assert capsys.readouterr().out == "Tale" + whole.split(middle)[0] + "\n"
    assert main([*words, "--stop", ""]) == 2


def test_settings_of_a_model_that_are_not_ours_are_told_with_the_flags_that_take_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    transformers = pytest.importorskip("transformers")
    write_model_folder(tmp_path, tiny_model(vocab_size=tokenizer.vocab_size), tokenizer)
    words = ["generate", str(tmp_path), "--prompt", "Tale", "--temperature", "0"]
    words += ["--max-new-tokens", "24"]
    assert main(words) == 0
    plain, said = capsys.readouterr()
    assert not said  # it has what we do
    path = tmp_path / "generation_config.json"
    older = json.loads(path.read_text()) | {"repetition_penalty": 1.5, "top_p": 0.9}
    del older["top_k"]
    path.write_text(json.dumps(older))
    assert main(words) == 0
    assert capsys.readouterr() == (
        plain,
        f"{path} is not used here; transformers samples by it as with --top-p 0.9 "
        "--repetition-penalty 1.5 --top-k 50\n",
    )
    assert main([*words, "--top-p", "1", "--repetition-penalty", "1.5", "--top-k", "50"]) == 0
    penalised, said = capsys.readouterr()
    assert penalised != plain and not said
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("Tale")]])
    theirs = model.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=0)[0]
    assert tokenizer.decode(theirs.tolist()[1:]).split("<|im_end|>")[0] == penalised.rstrip("\n")
    path.write_text('{"temperature": 0.7}')
    assert main(words[:4]) == 0
    assert capsys.readouterr().err.endswith("as with --temperature 0\n")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, jielong.cli.main\n"
        "try: jielong.cli.main.main(['pretrain', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True)
