"""The report's language: its sentences stand in English where they are said, here in Chinese."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from jielong.errors import ConfigError

LANGUAGES = ("auto", "en", "zh")
Say = Callable[..., str]
CHINESE = {
    "Comparison of {n} runs": "{n} 个训练的比较",
    "state": "状态",
    "running": "训练中",
    "finished": "已完成",
    "stopped": "已停止",
    "failed": "出错",
    "step": "步数",
    "{step} of {total}": "{step} / {total}",
    "held-out": "留出文本",
    "{bits} bits/byte": "{bits} 比特/字节",
    "best": "最好",
    "{bits} at step {step}": "{bits}（第 {step} 步）",
    "parameters": "参数",
    "tokens": "token",
    "time": "时间",
    "speed": "速度",
    "{n} tokens/s": "{n} token/秒",
    "step / tokens / time": "步数 / token / 时间",
    "Curves": "曲线",
    "Loss (nats per token)": "损失（nat/token）",
    "Held-out text (bits per byte)": "留出文本（比特/字节）",
    "Learning rate": "学习率",
    "Gradient norm": "梯度范数",
    "Speed (tokens per second)": "速度（token/秒）",
    "Busiest expert over the mean": "最忙专家的负载与平均之比",
    "training": "训练",
    "older text": "旧文本",
    "★ the best checkpoint": "★ 最好的检查点",
    "Bits per byte against tokens": "比特/字节，按 token",
    "Bits per byte against time": "比特/字节，按时间",
    "points: held-out text; line: training text": "点：留出文本；线：训练文本",
    "The held-out loss turned after step {step}: {best} there, {last} at step {end}. From then on "
    "the model memorises the training text.": "留出文本的损失在第 {step} 步之后回升：该步为 "
    "{best}，第 {end} 步为 {last}。此后模型在背诵训练文本。",
    "What it writes": "它写出的文字",
    "step {step}": "第 {step} 步",
    "{n} earlier validations with samples": "更早的 {n} 次样本",
    "Validations": "验证",
    "all {n} validations": "全部 {n} 次验证",
    "loss": "损失",
    "perplexity": "困惑度",
    "bits/byte": "比特/字节",
    "What looked wrong": "异常提示",
    "Text": "文本",
    "source": "来源",
    "documents": "文档",
    "size": "大小",
    "{train} to train on, {held} held out": "训练 {train}，留出 {held}",
    "{n} bytes per token, vocabulary {vocabulary}": "每 token {n} 字节，词表 {vocabulary}",
    "tokenizer": "分词器",
    "left out": "舍弃",
    "{n} bad lines": "{n} 行无法使用",
    "duplicates": "重复文档",
    "the dataset of this run is not here": "这里没有本次训练的数据集",
    "Settings": "设置",
    "setting": "设置",
    "all settings as given": "给定的全部设置",
    "what followed from them": "由此得出的值",
    "Machine": "机器",
    "device": "设备",
    "processes": "进程",
    "memory, at most": "内存（最高）",
    "share of the peak speed (MFU)": "占峰值算力（MFU）",
    "starts": "启动",
    "Settings that differ": "不同的设置",
    "no setting differs": "设置全部相同",
    "run": "训练",
    "The held-out texts are not the same, so the bits per byte cannot be compared: {what}.": "留出"
    "文本不同，比特/字节不可比较：{what}。",
    "different text": "文本不同",
    "another share of it is held out": "留出的比例不同",
    "The held-out text of {name} is not known here, so whether its bits per byte compare is not "
    "either.": "这里没有 {name} 的留出文本，无法判断比特/字节是否可比。",
    "No curves: they need matplotlib (pip install 'jielong[plots]', then jielong report).": "没有"
    "曲线：需要 matplotlib（pip install 'jielong[plots]'，然后 jielong report）。",
    "nothing is recorded yet": "尚无记录",
    "cannot be read: {what}": "无法读取：{what}",
    "folder": "文件夹",
    "written {time} by jielong report; no network, no script": "由 jielong report 写于 {time}；"
    "不联网，无脚本",
    "none": "无",
}


def language_of(wanted: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return en or zh; auto is what the locale's variables say.

    Raises:
        ConfigError: the language is none of these.
    """
    if wanted not in LANGUAGES:
        raise ConfigError(f"lang={wanted!r} is not one of {', '.join(LANGUAGES)}")
    if wanted != "auto":
        return wanted
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name):
            return "zh" if value.startswith("zh") else "en"
    return "en"


def sayer(language: str) -> Say:
    """Return `say`, which gives a sentence in en or zh: `say("step {step}", step=3)`."""
    table = CHINESE if language == "zh" else {}

    def say(sentence: str, **values: Any) -> str:
        return table.get(sentence, sentence).format(**values)

    return say
