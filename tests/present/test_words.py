"""Both languages: each sentence that is said has its Chinese, and the locale decides."""

from __future__ import annotations

import ast
import string

import pytest

from jielong.errors import ConfigError
from jielong.present.chinese import CHINESE
from jielong.present.words import language_of, sayer
from tiny import SOURCE


def said() -> set[str]:
    """The sentences of all calls of `say`, read from the syntax trees.

    The report has a table of its own.
    """
    sentences = set()
    for path in set(SOURCE.rglob("*.py")) - set(SOURCE.rglob("reports/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id != "say":
                    continue
                (sentence,) = node.args
                assert isinstance(sentence, ast.Constant), f"{path}:{node.lineno}: a variable"
                sentences.add(sentence.value)
    return sentences


def fields(sentence: str) -> set[tuple[str | None, str | None]]:
    return {(name, form) for _, name, form, _ in string.Formatter().parse(sentence) if name}


def test_each_sentence_has_its_chinese_and_each_chinese_sentence_is_said() -> None:
    assert said() == CHINESE.keys()


@pytest.mark.parametrize("sentence", CHINESE)
def test_a_translation_has_the_same_values(sentence: str) -> None:
    assert fields(CHINESE[sentence]) == fields(sentence)


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh"),
        ({"LANG": "C.UTF-8", "LANGUAGE": "zh_CN"}, "en"),  # gettext, too, ignores LANGUAGE then
    ],
)
def test_auto_is_the_language_of_the_locale(environment: dict[str, str], language: str) -> None:
    assert language_of("auto", environment) == language
    assert language_of("en", environment) == "en"


def test_say_fills_in_values_and_keeps_what_it_has_no_chinese_for() -> None:
    assert sayer("zh")("layer {n}", n=3) == "第 3 层"
    assert sayer("en")("layer {n}", n=3) == "layer 3"
    with pytest.raises(ConfigError, match="lang='fr' is not one of auto, en, zh"):
        sayer("fr")
