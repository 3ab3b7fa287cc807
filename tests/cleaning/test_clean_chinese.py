"""What `jielong clean` prints is there in Chinese, and what it records stays English."""

from __future__ import annotations

import ast
import json
import string
from pathlib import Path

import pytest

from cleaned_texts import edited, prose, write_texts
from jielong.cleaning.chinese import CHINESE, DETAILS, EXAMPLES
from jielong.cli.main import main
from jielong.present.finished import in_chinese
from tiny import SOURCE

# the calls whose words are shown, and which of their arguments
SAYS = {"word": (0,), "Drop": (0, 1), "_tell": (0,)}
NOTES = {"append": (0,)}


def said() -> set[str]:
    """The sentences that are shown, from the syntax trees, with 7 for every value."""
    found = set()
    for path in (SOURCE / "jielong" / "cleaning").glob("*.py"):
        says = SAYS | (NOTES if path.name == "pipeline.py" else {})
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                for argument in says.get(name, ()):
                    found |= sentences(node.args[argument])
    return {text for text in found if any(map(str.isalpha, text))}


def sentences(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Lambda):
        return sentences(node.body)
    if isinstance(node, ast.BinOp):
        return sentences(node.left)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.JoinedStr):
        return {"".join(str(p.value) if isinstance(p, ast.Constant) else "7" for p in node.values)}
    return set()


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in text)


def test_every_sentence_that_a_cleaning_prints_has_its_chinese() -> None:
    sentences = said()
    assert len(sentences) > 50
    assert not [text for text in sentences if not is_chinese(in_chinese(text, CHINESE))]


@pytest.mark.parametrize(("english", "table"), [(e, t) for t in (CHINESE, EXAMPLES) for e in t])
def test_a_sentence_in_chinese_has_the_same_values(english: str, table: dict[str, str]) -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert fields(table[english]) == fields(english)
    values = {name: f"{number}.5" for number, name in enumerate(sorted(fields(english)), start=1)}
    assert in_chinese(english.format(**values), table) == table[english].format(**values)


def test_an_example_is_translated_but_for_the_text_in_it() -> None:
    for detail in DETAILS:
        said = in_chinese(f"a b.txt:3: {detail}: nothing in 1 line: 5 texts", EXAMPLES)
        assert said.startswith("a b.txt:3：") and said.endswith("：nothing in 1 line: 5 texts")
    assert in_chinese("a.txt:3: nothing in 5 texts", EXAMPLES) == "a.txt:3: nothing in 5 texts"


def test_the_report_is_in_chinese_and_the_record_in_english(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rensa")
    texts = [*(prose(n) for n in range(9)), prose(1), edited(prose(2), 1), "nothing: 3 words"]
    corpus, out = write_texts(tmp_path, texts), tmp_path / "out"
    words = ["clean", "--data-path", str(corpus), "--out-dir", str(out), "--min-chars", "99"]
    assert main([*words, "--lang", "zh"]) == 0
    said = capsys.readouterr().out
    for line in (
        f"已清洗     {out}",
        "  读取           12 篇，",
        "  exact          丢掉 1 篇，占文本的 ",
        f"    {corpus}:10：与 {corpus}:2 相同：",
        "  length         丢掉 1 篇，占文本的 0.3% (字符太少 1)",
        f"    {corpus}:12：16 个字符，少于 99：nothing: 3 words",
        f"    全部见：{out}/dropped/near.jsonl",
        "  保留           9 篇，",
    ):
        assert line in said, (line, said)
    assert not is_chinese((out / "cleaning.json").read_text())
    assert main([*words, "--lang", "en"]) == 0
    assert not is_chinese(capsys.readouterr().out)
    assert main([*words, "--lang", "zh", "--json"]) == 0
    assert not is_chinese(json.dumps(json.loads(capsys.readouterr().out), ensure_ascii=False))
    assert main([*words, "--lang", "fr"]) == 2
    assert capsys.readouterr().err == "error: lang='fr' is not one of auto, en, zh\n"
