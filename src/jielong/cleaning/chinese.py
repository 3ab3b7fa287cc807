"""What a cleaning prints, in Chinese, by its English form (`present/finished.py`)."""

from __future__ import annotations

REPORT = {
    "cleaned {as_is}": "已清洗     {as_is}",
    "cleaned {as_is} (already cleaned: reused)": "已清洗     {as_is}（以前清洗过：重复使用）",
    "  read           {texts}, {n} MB": "  读取           {texts}，{n} MB",
    "  left out       {what}; see {as_is}": "  略去           {what}；见 {as_is}",
    "  WARNING        text was left out; the first is {as_is}": (
        "  警告           有文本被略去；第一处是 {as_is}"
    ),
    "  note           {what}": "  注意           {what}",
    "  kept           {texts}, {n} MB ({share}), in {files}": (
        "  保留           {texts}，{n} MB（{share}），{files}"
    ),
    "{n} file": "{n} 个文件",
    "{n} files": "{n} 个文件",
    "  off            {as_is}": "  未启用         {as_is}",
    "{n} text": "{n} 篇",
    "{n} texts": "{n} 篇",
    "nothing": "无",
    "dropped {texts}, {share} of the text": "丢掉 {texts}，占文本的 {share}",
    "took lines out of {texts}, {share} of the text": "从 {texts}里去掉了行，占文本的 {share}",
    "masked in {texts}": "在 {texts}里做了遮盖",
    "    all of them: {as_is}": "    全部见：{as_is}",
    "  WARNING        {as_is} dropped more than half of the text: is it of the kind that this "
    "filter is for? {as_is_flag} leaves it out": (
        "  警告           {as_is} 丢掉了一半以上的文本：这个过滤器适合这种文本吗？"
        "{as_is_flag} 可以不用它"
    ),
    "{n} bytes, {share} of the text ({list})": "{n} 字节，占文本的 {share}（{list}）",
    "less than 0.1%": "不到 0.1%",
    "{n} line {kind}": "{n} 行{kind}",
    "{n} lines {kind}": "{n} 行{kind}",
    "not UTF-8": "不是 UTF-8",
    "not JSON": "不是 JSON",
    "not CSV": "不是 CSV",
    "too long": "太长",
    "without text": "没有文本",
    "{n} unreadable file": "{n} 个读不了的文件",
    "{n} unreadable files": "{n} 个读不了的文件",
    "{n} unreadable part": "{n} 处读不了",
    "{n} unreadable parts": "{n} 处读不了",
    "{n} texts of more than 16 million characters stay: near compares shorter ones": (
        "{n} 篇超过 1600 万字符的文本保留：near 只比较较短的"
    ),
    "{n} of {all} evaluation texts have fewer than 5 words: they were not looked for": (
        "{all} 篇评测文本中有 {n} 篇不到 5 个词：没有查找"
    ),
    "left out: {what}; first {as_is}": "略去：{what}；第一处 {as_is}",
}
PROGRESS = {
    "read {texts}, {n} MB{left}": "已读 {texts}，{n} MB{left}",
    " ({time} left)": "（还剩 {time}）",
    "written {texts}": "已写 {texts}",
    "{as_is}: text {n} of {all}": "{as_is}：第 {n} 篇，共 {all} 篇",
    "{n} min": "{n} 分钟",
    "{n} s": "{n} 秒",
}
RULES = {
    "few words": "词太少",
    "very many words": "词太多",
    "symbols": "符号",
    "bullets": "项目符号",
    "cut lines": "被截断的行",
    "length of words": "词长",
    "length of clauses": "分句长度",
    "no common words": "没有常用词",
    "no letters": "没有字母",
    "repeated {what}": "重复的{what}",
    "lines": "行",
    "paragraphs": "段落",
    "a repeated phrase": "一个重复的短语",
    "repeated phrases": "重复的短语",
    "placeholder": "占位文字",
    "notices": "告示",
    "few sentences": "句子太少",
    "lines without end": "没有句末标点的行",
    "short lines": "短行",
    "a list": "列表",
    "a shared passage": "相同的段落",
    "nothing else": "别无他物",
    "few {unit}": "{unit}太少",
    "many {unit}": "{unit}太多",
    "characters": "字符",
    "tokens": " token",
    "email": "电子邮件",
    "ip": "IP 地址",
    "phone": "电话",
    "id": "身份证号",
    "card": "卡号",
}
# why a text was dropped, with the numbers
DETAILS = {
    "about {n}": "约 {n}",
    "{n} words, fewer than {least}": "{n} 个词，少于 {least}",
    "{n} words, more than {most}": "{n} 个词，多于 {most}",
    "{n} {sign} for each word, above {most}": "每个词 {n} 个 {sign}，高于 {most}",
    "{share} of the lines are bullets, above {most}": "{share} 的行是项目符号，高于 {most}",
    "{share} of the lines end in …, above {most}": "{share} 的行以 … 结尾，高于 {most}",
    "{n} characters a word, not {least} to {most}": (
        "每个词 {n} 个字符，不在 {least} 到 {most} 之间"
    ),
    "{n} of the commonest words, fewer than {least}": "只有 {n} 个最常用的词，少于 {least}",
    "{share} of the words have letters, below {least}": "{share} 的词有字母，低于 {least}",
    "{n} characters a clause, not {least} to {most}": (
        "每个分句 {n} 个字，不在 {least} 到 {most} 之间"
    ),
    "{n} of the commonest characters, fewer than {least}": "只有 {n} 个最常用的字，少于 {least}",
    "{share} of the {what} repeat, above {most}": "{share} 的{what}是重复的，高于 {most}",
    "repeated {what} are {share} of the text, above {most}": (
        "重复的{what}占文本的 {share}，高于 {most}"
    ),
    "one run of {n} words is {share} of the text, above {most}": (
        "一个 {n} 词的片段占文本的 {share}，高于 {most}"
    ),
    "repeated runs of {n} words are {share}, above {most}": (
        "重复的 {n} 词片段占 {share}，高于 {most}"
    ),
    "lorem ipsum": "乱数假文（lorem ipsum）",
    "nothing but notices": "只有告示",
    "{n} sentences, fewer than {least}": "{n} 句，少于 {least}",
    "{share} of the lines end in a mark, below {least}": "{share} 的行以标点结尾，低于 {least}",
    "{share} of the lines are short, above {most}": "{share} 的行很短，高于 {most}",
    "{n} lines for each word, above {most}": "每个词 {n} 行，高于 {most}",
    "in {as_is_code}, with probability {p}": "语言是 {as_is_code}，概率 {p}",
    "{n} shared runs; first: {as_is_run}": "{n} 个相同的片段；第一个：{as_is_run}",
    "all of its lines are in many texts": "它的每一行都在许多文本里",
    "{n} {unit}, fewer than {least}": "{n} 个{unit}，少于 {least}",
    "{n} {unit}, more than {most}": "{n} 个{unit}，多于 {most}",
}
CHINESE: dict[str, str] = REPORT | PROGRESS | RULES | DETAILS
# of what was dropped; apart, since any text stands in them
EXAMPLES: dict[str, str] = {
    "{as_is}: the same as {as_is_first}: {as_is_text}": (
        "{as_is}：与 {as_is_first} 相同：{as_is_text}"
    ),
    "{as_is}: {share} like {as_is_first}: {as_is_text}": (
        "{as_is}：与 {as_is_first} 有 {share} 相同：{as_is_text}"
    ),
    **{
        "{as_is}: " + english + ": {as_is_text}": "{as_is}：" + chinese + "：{as_is_text}"
        for english, chinese in DETAILS.items()
    },
    **{english: RULES[english] for english in ("lines", "paragraphs", "characters", "tokens")},
    "about {n}": DETAILS["about {n}"],
}
