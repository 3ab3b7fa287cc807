"""Settings: layered, typed, checked by name, and back to TOML without loss."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jielong.config.load import load_config, load_preset, load_toml, preset_names
from jielong.config.model import ModelConfig
from jielong.config.settings import FIELDS, Config
from jielong.errors import ConfigError
from jielong.model.transformer import Transformer
from jielong.training.scaling import default_learning_rate


def parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return Transformer(config).num_parameters()


def test_there_are_the_presets_that_the_papers_name() -> None:
    assert {"tiny", "small", "minimind", "base", "qwen3-64m", "moe"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds(name: str) -> None:
    config = load_config(name)
    assert parameters(config.model) > 0
    assert 0 < default_learning_rate(config) < 0.1


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("tiny", 0.5e6, 1.5e6),
        ("minimind", 25_829_888, 25_829_888),  # 25.830M, as MiniMind2-small prints
        ("base", 90e6, 110e6),
        ("qwen3-64m", 60e6, 68e6),
    ],
)
def test_presets_have_the_size_that_they_say(name: str, least: float, most: float) -> None:
    assert least <= parameters(load_config(name).model) <= most


def test_a_preset_is_overlaid_by_a_file_and_that_by_flags(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[model]\nhidden_size = 96\n\n[training]\nlearning_rate = 3e-4\n")
    config = load_config("small", file, learning_rate="0.001")
    preset = load_preset("small")
    assert config.model.num_hidden_layers == preset["num_hidden_layers"]  # the preset's
    assert config.model.hidden_size == 96 != preset["hidden_size"]  # the file's
    assert config.training.learning_rate == 0.001  # the flag's
    assert config.data.text_field == "text"  # the default


def test_toml_gives_back_every_value(tmp_path: Path) -> None:
    changed = load_config(
        "moe",
        data_path=("a.jsonl", "b c.txt"),
        steps="100",
        sample_prompts=("春眠不覺曉", 'with "quotes"\n'),
        validation_fraction=0.0,
        use_moe=True,
        norm_topk_prob="false",
    )
    for config in (Config(), changed, *map(load_config, preset_names())):
        file = tmp_path / "config.toml"
        file.write_text(config.to_toml(), encoding="utf-8")
        assert load_config(file=file) == config
        assert tomllib.loads(config.to_toml()) == config.to_tables()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("use_moe", "true", True),
        ("use_moe", "False", False),
        ("qk_norm", "0", False),
        ("qk_norm", "off", False),
        ("shuffle", "No", False),
        ("strict", "YES", True),
        ("steps", "1_000", 1000),
        ("tokens", "2e9", 2_000_000_000),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "none", None),
        ("steps", 5.0, 5),
        ("data_path", "one.txt", ("one.txt",)),
        ("data_path", ["one.txt", "two.txt"], ("one.txt", "two.txt")),
    ],
)
def test_values_are_parsed_by_the_type_of_their_field(name: str, text: Any, value: Any) -> None:
    changes = {"num_experts": 4} if name == "use_moe" else {}
    got = Config().with_values(**{name: text}, **changes).flat()[name]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hiden_size": 4}, ["hiden_size", "did you mean hidden_size"]),
        ({"hidden_size": "wide"}, ["model.hidden_size", "'wide'", "int"]),
        ({"hidden_size": 1.5}, ["model.hidden_size", "1.5"]),
        ({"hidden_size": True}, ["model.hidden_size", "True"]),
        ({"hidden_size": 0}, ["model.hidden_size=0", "below", "1"]),
        ({"hidden_size": "none"}, ["model.hidden_size"]),
        ({"use_moe": "maybe"}, ["model.use_moe", "'maybe'", "true or false"]),
        ({"learning_rate": "nan"}, ["training.learning_rate", "finite"]),
        ({"learning_rate": -1}, ["training.learning_rate", "below"]),
        ({"rms_norm_eps": "inf"}, ["model.rms_norm_eps", "finite"]),
        ({"schedule": "cosinus"}, ["training.schedule", "did you mean cosine"]),
        ({"packing": "x"}, ["data.packing", "pack, pad"]),
        ({"validation_fraction": 0.9}, ["data.validation_fraction", "above", "0.5"]),
        ({"data_path": 3}, ["data.data_path", "3"]),
        ({"data_path": [1]}, ["data.data_path"]),
        ({"text_field": 3}, ["data.text_field", "str"]),
        ({"hidden_size": 100, "num_attention_heads": 3}, ["hidden_size", "num_attention_heads"]),
        ({"num_key_value_heads": 3}, ["num_attention_heads", "num_key_value_heads"]),
        ({"head_dim": 7}, ["head_dim", "odd"]),
        ({"steps": 5, "tokens": 5}, ["training.steps", "training.tokens"]),
        ({"max_seq_len": 64, "max_position_embeddings": 32}, ["max_seq_len", "max_position"]),
        ({"num_experts": 8}, ["model.num_experts", "use_moe"]),
        ({"use_moe": True, "num_experts": 2, "num_experts_per_tok": 3}, ["num_experts_per_tok"]),
        ({"steps": "1e400"}, ["training.steps"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Config().with_values(**values)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@given(st.sampled_from(sorted(FIELDS)), st.text(max_size=12) | st.floats() | st.none())
def test_any_value_either_fits_or_is_a_config_error(name: str, value: Any) -> None:
    try:
        config = Config().with_values(**{name: value})
    except ConfigError as error:
        assert name in str(error)
    else:
        got = config.flat()[name]
        assert got is None or isinstance(got, FIELDS[name].type)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[modle]\n", ["[modle]", "did you mean model"]),
        ("hidden_size = 3\n", ["hidden_size"]),
        ("[model]\nhiden_size = 3\n", ["model.hiden_size", "hidden_size"]),
        ("[training]\nhidden_size = 3\n", ["training.hidden_size", "belongs in [model]"]),
        ("[model\n", ["not valid TOML"]),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_place(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_toml(file)
    for word in ["mine.toml", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["no such file.toml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toml(tmp_path / name)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean small"):
        load_config("smal")


def test_every_field_explains_itself() -> None:
    for spec in FIELDS.values():
        text = spec.metadata["help"]
        assert text.endswith(".") and "\n" not in text, spec.name


def test_a_config_cannot_be_changed_by_accident() -> None:
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.hidden_size = 3  # type: ignore[misc]
    assert config.with_values(hidden_size=256).model.hidden_size == 256
    assert config.model.hidden_size == 512


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        ({"batch_size": 4}, (4, None)),
        ({"batch_size": "4", "accumulation_steps": 2}, (8, 4)),
        ({"batch_size": 4, "accumulation_steps": 2, "micro_batch_size": 1}, (8, 1)),
        ({"accumulation_steps": 1}, (None, None)),
        ({"preset": "minimind"}, (256, 32)),
        ({"preset": "minimind", "batch_size": 4}, (32, 4)),
        ({"preset": "minimind", "global_batch_size": 4}, (4, None)),
    ],
    ids=str,
)
def test_miniminds_two_flags_set_the_two_sizes_of_a_batch(
    values: dict[str, Any], sizes: tuple[int | None, int | None]
) -> None:
    training = load_config(**values).training
    assert (training.global_batch_size, training.micro_batch_size) == sizes


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"global_batch_size": 8, "batch_size": 4}, "give one"),
        ({"accumulation_steps": 3}, "needs batch_size"),
        ({"batch_size": 0}, "batch_size=0 is below"),
        ({"batch_size": "many"}, "batch_size='many'"),
    ],
    ids=str,
)
def test_flags_that_contradict_or_say_nothing_are_refused(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        load_config(**values)
