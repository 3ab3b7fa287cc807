"""The words of the suites' tables in Chinese, by their English form (`present/finished.py`)."""

CHINESE = {
    "value": "数值",
    "before": "之前",
    "change": "变化",
    "accuracy": "准确率",
    "share": "占比",
    "bits/byte": "比特/字节",
    "bits": "比特",
    "tokens": "token",
    "chance": "随机",
    "unigram": "一元模型",
    "bigram": "二元模型",
    "real text": "真实文本",
    "not repeated": "未重复",
    "÷ √length": "÷ √长度",
    "grammar": "语法",
    "cloze": "完形",
    "copying": "复制",
    "writing": "写作",
    "memorising": "死记",
    "text": "文本",
    "tasks": "任务",
    "held-out": "留出文本",
    "continuation": "续写",
    "next token": "下一个 token",
    "{n} tokens back": "{n} 个 token 之前",
    "{n} tokens back, gained": "{n} 个 token 之前，所得",
    "{n}-grams in the training text": "训练文本中的 {n}-gram",
    "longest match": "最长匹配",
    "distinct-{n}": "不同的 {n}-gram",
    "{n}-grams repeated": "重复的 {n}-gram",
    "{n}-grams of other texts": "其他文本中的 {n}-gram",
    "{name}, answered": "{name}，作答",
    "all sets": "全部数据集",
    "all sets, ÷ √length": "全部数据集，÷ √长度",
    "{n} tokens seen": "已训练 {n} 个 token",
    "before: {as_is}": "之前：{as_is}",
    "± is the standard error over {what}": "± 是标准误差，按{what}计算",
    "texts": "文本",
    "sequences": "序列",
    "documents": "文档",
    "questions": "题目",
    "documents: passages of one document count together": "文档（同一篇文档的段落算在一起）",
    "pairs; of all sets together, within each set": "句对（全部数据集的合计在各集之内计算）",
    "in {n} of {all} sets the good sentences are longer or shorter than the bad ones by more than "
    "{share}: there, read ÷ √length, which corrects for it": (
        "{all} 个数据集中有 {n} 个，正确句与错误句的长度相差超过 {share}："
        "这些请看 ÷ √长度，它作了修正"
    ),
    "continuation: of {length} tokens after at most {context}, one true and {n} from elsewhere in "
    "the held-out text; next token: how often the likeliest is the true one": (
        "续写：最多 {context} 个 token 之后的 {length} 个 token，一个是真的，"
        "{n} 个来自留出文本别处；"
        "下一个 token：最可能的就是正确的，占多少"
    ),
    "not repeated: the same tokens, but {n} others where they stood first; gained: bits per token "
    "that the first reading saves, 0 for a model that does not copy, about {most} for one that "
    "does": (
        "未重复：同样的 token，但第一次出现处换成另外 {n} 个；"
        "所得：第一次读到为每个 token 省下的比特，"
        "不会复制的模型为 0，会复制的约为 {most}"
    ),
    "{n} held-out texts continued for at most {length} tokens, sampled at temperature {t} and "
    "top-p {p}, beside how they really go on, cut to the same lengths": (
        "{n} 篇留出文本各续写最多 {length} 个 token（temperature {t}，top-p {p}），"
        "旁边是它们真正的下文，截到同样长度"
    ),
    "a match has {n} tokens or more; a text without one counts 0": (
        "匹配至少 {n} 个 token；没有匹配的文本计 0"
    ),
    "the longest match of all, {n} tokens: {quoted}": "最长的匹配，{n} 个 token：{quoted}",
    "more was found than is kept: the numbers are too low": "找到的比保留的多：数字偏低",
    "bits/byte: of the right answer, the mean over questions; it tells models of this size apart, "
    "while accuracies are close to chance": (
        "比特/字节：正确答案的，按题目平均；它能区分这种规模的模型，而准确率接近随机"
    ),
    "{name} has another tokenizer, so it is not compared here": (
        "{name} 的分词器不同，所以这里不比较"
    ),
}
