"""The filters that look at one text alone: what each drops or changes, and what it lets be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cleaned_texts import clean_texts, dropped, kept, prose
from jielong.cleaning.contamination import Contamination
from jielong.cleaning.language import Language
from jielong.cleaning.outcome import Change, Drop
from jielong.cleaning.quality import quality
from jielong.cleaning.repetition import repetition
from jielong.cleaning.web import web
from jielong.errors import ConfigError, DataError

ENGLISH = """It was late in the year, and the roads that lead to the coast were empty. The old man
had walked since the morning with a bag on his back and a dog that would not leave him.

When he came to the bridge he stopped, for the river had risen and the planks were wet. "We have
time," he said to the dog, and sat down to wait until the water would fall."""
GERMAN = """Es war spät im Jahr, und die Straßen zur Küste waren leer. Der alte Mann war seit dem
Morgen gegangen, mit einem Sack auf dem Rücken und einem Hund, der sich nicht von ihm trennen ließ.
Als er zur Brücke kam, hielt er an, denn der Fluss war gestiegen, und die Bretter waren nass. Er
setzte sich zu dem Hund und wartete, bis das Wasser wieder fiel, und es ist nicht lange gewesen."""
MODERN = """那年冬天来得很早，通往海边的路上几乎没有人。
老人从早上一直走到傍晚，背上背着一个旧布包，身边跟着一条不肯离开他的狗。
走到桥头的时候，他停了下来，
因为河水涨得很高，桥板都是湿的。“我们不着急，”他对狗说，然后坐在石头上，等着水慢慢退下去。
天快黑了，远处的村子里亮起了灯，他想起很多年以前也曾在这里等过，那时候他还是个孩子。"""
CLASSICAL = """晉太元中，武陵人捕魚為業。緣溪行，忘路之遠近。
忽逢桃花林，夾岸數百步，中無雜樹，芳草鮮美，落英繽紛。漁人甚異之，復前行，欲窮其林。
林盡水源，便得一山，山有小口，髣髴若有光。
便捨船，從口入。初極狹，纔通人。復行數十步，豁然開朗。土地平曠，屋舍儼然，有良田、美池、桑竹之屬。阡陌交通，雞犬相聞。"""
JAPANESE = """その年の冬は早く来て、海へ続く道にはほとんど人がいなかった。
老人は朝からずっと歩いていた。背中には古い袋があり、そばには離れようとしない犬がいた。
橋に着くと、彼は立ち止まった。川の水が増えて、板が濡れていたからだ。
「急ぐことはない」と彼は犬に言って、水が引くのを待つために石の上に座った。"""
FLAT = MODERN.replace("\n", "")
PROSE = [ENGLISH, GERMAN, MODERN, CLASSICAL, JAPANESE]
KEYWORDS = (
    "手机 电脑 相机 耳机 音箱 键盘 鼠标 屏幕 硬盘 内存 主板 显卡 机箱 电源 风扇 路由 网线 插座 " * 6
)


def rule(judge: object, text: str) -> str | None:
    """The rule by which a text is dropped; None if it stays as it is."""
    outcome = judge(text)  # type: ignore[operator]
    assert not isinstance(outcome, Change)
    return outcome.rule if isinstance(outcome, Drop) else None


@pytest.mark.parametrize("judge", [quality, repetition, web], ids=lambda judge: judge.__name__)
@pytest.mark.parametrize("text", PROSE, ids=["en", "de", "zh", "lzh", "ja"])
def test_prose_of_any_language_stays(judge: object, text: str) -> None:
    assert rule(judge, text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Only a few words are in this text.", "few words"),
        ("山高月小，水落石出。", "few words"),
        ("the of and word " * 25_001, "very many words"),
        ("#love #sun #sea and the of a be to " * 10, "symbols"),
        ("等等……还有……再见……明天……" * 20, "symbols"),
        ("- one of the many things\n" * 40, "bullets"),
        (("the rest of this is to be read …\n" * 2 + "and of the end.\n") * 20, "cut lines"),
        ("12 34 56 the 7 8 of 9 10 11 " * 10, "no letters"),
        ("第一名是他的 98 97 96 95 94 93 92 91 90 " * 20, "no letters"),
        ("a be of to an is it in " * 20, "length of words"),
        ("internationalisation of internationalisation and " * 20, "length of words"),
        (KEYWORDS, "length of clauses"),
        ("中国北京上海广州深圳天津重庆武汉南京杭州" * 8, "length of clauses"),
        ("green table seven chairs yellow lamp window " * 10, "no common words"),
        ("山川草木，花鳥蟲魚，日月星辰，風霜雨雪，" * 8, "no common words"),
    ],
)
def test_what_is_not_prose_is_dropped_by_a_rule_of_quality(text: str, expected: str) -> None:
    assert rule(quality, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One line of the text.\nOne line of the text.\nAnother line.\n", "repeated lines"),
        ("buy now " * 8 + prose(1, 60), "a repeated phrase"),
        ("点击购买" * 12 + MODERN[:60], "a repeated phrase"),
        (f"{ENGLISH[:200]} {ENGLISH[:180]} {prose(2, 40)}", "repeated phrases"),
        (f"{FLAT[:60]}{FLAT[5:60]}{CLASSICAL[:60]}", "repeated phrases"),
    ],
)
def test_what_repeats_itself_is_dropped(text: str, expected: str) -> None:
    assert rule(repetition, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ENGLISH}\nLorem ipsum dolor sit amet.", "placeholder"),
        ("Home\nNews\nContact\nOne sentence is here.", "few sentences"),
        ("首页\n新闻\n联系我们\n这里只有一句话。", "few sentences"),
        ("Home\nNews\n" * 20 + ENGLISH.replace("\n", " "), "lines without end"),
        ("Yes, it is.\nNo, it is not.\nWhy not?\n" * 4, "short lines"),
        ("是的。\n不是。\n为什么？\n" * 4, "short lines"),
        ("All rights reserved.\n", "notices"),
    ],
)
def test_lists_and_menus_are_dropped(text: str, expected: str) -> None:
    assert rule(web, text) == expected


def test_notices_of_web_pages_are_taken_out_and_listed(tmp_path: Path) -> None:
    notices = ["Please enable JavaScript.", "© 2020. All rights reserved.", "版权所有 京ICP备123号"]
    texts = [f"{notices[0]}\n{ENGLISH}\n{notices[1]}", f"{MODERN}\n{notices[2]}\n", CLASSICAL]
    report = clean_texts(tmp_path, texts, filters="web")
    assert kept(report) == [f"{ENGLISH}\n", f"{MODERN}\n", CLASSICAL]
    assert [row["removed"] for row in dropped(report, "web")] == [notices[:2], notices[2:]]
    account = report.accounts["web"]
    assert (account.dropped, account.changed, account.rules["notices"]) == (0, 2, 3)


def test_texts_in_other_languages_are_dropped_and_short_ones_stay(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    texts = [*PROSE, "Guten Tag!", "12345", "def f(x):\n    return x + 1\n"]
    report = clean_texts(tmp_path, texts, languages=("en", "zh"))
    assert kept(report) == [ENGLISH, MODERN, CLASSICAL, *texts[5:]]
    assert report.accounts["language"].rules == {"de": 1, "ja": 1}
    with pytest.raises(
        ConfigError, match=r"languages='english' is no language .* such as en and zh"
    ):
        Language(["english"])


def test_without_its_library_language_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r"py3langid.*jielong\[clean\].*leave --languages out"):
        clean_texts(tmp_path, [ENGLISH], filters="none", languages=("en",))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_texts_that_share_a_passage_with_an_evaluation_text_are_dropped(tmp_path: Path) -> None:
    evaluation = [prose(50, 60), MODERN, "Short one", "What is the largest river of France?"]
    (tmp_path / "test.txt").write_text("\n---\n".join(evaluation * 3))
    within = prose(1) + " " + " ".join(prose(50, 60).upper().split()[20:33]) + " " + prose(2)
    one_less = prose(3) + " " + " ".join(prose(50, 60).split()[20:32]) + " " + prose(4)
    chinese = CLASSICAL + MODERN[10:30]
    question = "Q: what is the LARGEST river of France"
    texts = [prose(5), within, one_less, chinese, question, CLASSICAL]
    report = clean_texts(tmp_path, texts, filters="none", against=str(tmp_path / "test.txt"))
    assert kept(report) == [prose(5), one_less, CLASSICAL]
    assert [row["line"] for row in dropped(report, "contamination")] == [2, 4, 5]
    assert "what is the largest river of france" in dropped(report, "contamination")[2]["why"]
    assert "3 of 12 evaluation texts have fewer than 5 words" in "\n".join(report.lines())


def test_evaluation_texts_must_be_there_and_be_no_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no evaluation text has 5 words"):
        Contamination(["too short"], 13)
    monkeypatch.setattr("jielong.cleaning.contamination.MOST_WORDS", 100)
    with pytest.raises(DataError, match="give the test sets"):
        Contamination([prose(1), prose(2)], 13)


def test_only_the_beginning_of_a_very_long_text_is_judged() -> None:
    text = ENGLISH * 4000
    assert len(text) > 2**20
    assert rule(quality, text + "\n" + "# " * 10**6) == rule(quality, text)
