"""What is said of a text, a tokenizer and a dataset, in Chinese, by its English form."""

WHY_NOT_READ = {
    "a run of jielong": "jielong 的一次训练",
    "a prepared dataset": "准备好的数据集",
    "of a program, not text": "程序的文件，不是文本",
    "about the dataset, not of it": "关于数据集的说明，不属于数据",
    "in no text format": "不是文本格式",
    "in no text format; {as_is_flag} reads such as plain text": (
        "不是文本格式；用 {as_is_flag} 可当作纯文本来读"
    ),
    "hidden": "隐藏文件",
    "a broken link, or no file": "失效的链接，或不是文件",
    "cannot be opened": "打不开",
    "a link to what is read already": "链接到已经读取的内容",
    "a cache of the datasets library": "datasets 库的缓存",
    "read by {as_is_package}": "要读它：{as_is_package}",
    "dropped by jielong clean": "被 jielong clean 去掉",
    "a test split; to measure on it: {as_is_flag}": "测试集；要用来测量：{as_is_flag}",
    "a validation split; to measure on it: {as_is_flag}": "验证集；要用来测量：{as_is_flag}",
}
DATA = {
    "to train on them: {as_is}": "用它们训练：{as_is}",
    "training a tokenizer of {n} tokens …": "正在训练 {n} 个 token 的分词器 …",
    "tokenizer of {n} tokens: {as_is}": "{n} 个 token 的分词器：{as_is}",
    "tokenizer of {n} tokens, not {asked}: the text repeats no more: {as_is}": (
        "{n} 个 token 的分词器，而不是 {asked} 个：文本里没有更多重复：{as_is}"
    ),
    "the tokenizer has {n} tokens": "分词器有 {n} 个 token",
    "dataset {as_is} (the run's own)": "数据集 {as_is}（本次训练自己的）",
    "dataset {as_is} (already prepared: reused)": "数据集 {as_is}（已经准备好：重复使用）",
    "dataset {as_is}": "数据集 {as_is}",
    "  left out       {amount} bytes, {share} of the text ({list}); see {place}": (
        "  略去           {amount} 字节，占文本的 {share}（{list}）；见 {place}"
    ),
    "  WARNING        text was left out; the first is {as_is}": (
        "  警告           有文本被略去；第一处：{as_is}"
    ),
    "left out: {amount}; first {what}": "略去：{amount}；第一处：{what}",
    "{n} bytes, {share} of the text ({list})": "{n} 字节，占文本的 {share}（{list}）",
    "  files          {what}": "  文件           {what}",
    "files          {what}": "文件           {what}",
    "not read       {what}": "未读取         {what}",
    "note           {what}": "注意           {what}",
    "  not read       {what}": "  未读取         {what}",
    "  documents      {n} ({share} duplicates)": "  文档           {n}（{share} 重复）",
    "  documents      {n} ({share} duplicates, about {near} with near ones)": (
        "  文档           {n}（{share} 重复，连同近似重复约 {near}）"
    ),
    "about {share} of the documents nearly repeat another one: `jielong clean` keeps one of each, "
    "before any is held out": (
        "约 {share} 的文档与另一篇近乎重复：`jielong clean` 在留出之前每组只保留一篇"
    ),
    "  tokens         {n} as {kind}, vocabulary {v}": "  token          {n}（{kind}），词表 {v}",
    "  text           {n} MB, {each} bytes per token": (
        "  文本           {n} MB，每 token {each} 字节"
    ),
    "  lengths        median {a} tokens; 5% {b}, 25% {c}, 75% {d}, 95% {e}, longest {f}": (
        "  长度           中位数 {a} 个 token；5% {b}，25% {c}，75% {d}，95% {e}，最长 {f}"
    ),
    "  held out       {n} documents, {tokens} tokens ({share})": (
        "  留出           {n} 篇文档，{tokens} 个 token（{share}）"
    ),
    "  held out       {what}": "  留出           {what}",
    "  packing        avoids {a} padding and {b} truncation": (
        "  拼接           避免了 {a} 的填充和 {b} 的截断"
    ),
    "                 (of one document per row of {n} tokens)": (
        "                 （与每行 {n} 个 token 放一篇文档相比）"
    ),
    "  note           {what}": "  注意           {what}",
    "  sample         {as_is}": "  样本           {as_is}",
    "none": "无",
    "  WARNING        about {share} of the held-out text also stands in the training text: its "
    "loss will be too low": "  警告           留出文本约有 {share} 也在训练文本里：留出损失会偏低",
    "{a} training document also occurs in the held-out text: its loss will be too low": (
        "有 {a} 篇训练文档也出现在留出文本里：留出损失会偏低"
    ),
    "{a} training documents also occur in the held-out text: its loss will be too low": (
        "有 {a} 篇训练文档也出现在留出文本里：留出损失会偏低"
    ),
    "too little text to hold any out, or all of it repeated: nothing tells learning from "
    "memorising; add text, or give --validation-path": (
        "文本太少，或全是重复，没有留出任何文本：无法区分学习和死记；请增加文本，或给出 "
        "--validation-path"
    ),
    "{n} documents already have bos or eos in their text: not added twice": (
        "{n} 篇文档的文本里已有 bos 或 eos：不再重复添加"
    ),
    "the tokenizer has no eos token: the model cannot learn where a text ends; name one with "
    "--eos-token": ("分词器没有 eos token：模型学不到文本在哪里结束；用 --eos-token 指定一个"),
    "the tokenizer has no bos token either: no token separates documents": (
        "分词器也没有 bos token：没有 token 把文档分开"
    ),
    "WARNING: {as_is}: both trained on and held out (--validation-path), so the held-out loss says "
    "how much was memorised, not how good the model is; leave --validation-path away to hold out a "
    "part": (
        "警告：{as_is} 既用来训练又被留出（--validation-path），所以留出损失说明的是背下了多少，"
        "而不是模型有多好；去掉 --validation-path，就会自动留出一部分"
    ),
    "{as_is}: read as JSON, which it holds": "{as_is}：内容是 JSON，按 JSON 读取",
    "{as_is}: read as {codec}": "{as_is}：按 {codec} 读取",
    "{as_is}: named more than once, read as often": "{as_is}：给出了不止一次，就读这么多次",
    "{as_is}: trained on, although named like held-out text; to measure on it instead, leave it "
    "out and give --validation-path {as_is_path}": (
        "{as_is}：名字像留出文本，但用来训练；如果要用它来衡量模型，请从训练文本里去掉它，并给出 "
        "--validation-path {as_is_path}"
    ),
    "special tokens inside texts: {as_is}; they are trained as such.{fix}": (
        "文本里有特殊 token：{as_is}；按特殊 token 训练。{fix}"
    ),
    " --document-separator '{mark}' ends a text there": (
        "用 --document-separator '{mark}' 可使文本在那里结束"
    ),
    "{as_is} in the texts look like special tokens of another tokenizer; they are learnt as plain "
    "characters. --document-separator ends texts at one": (
        "文本里的 {as_is} 像是别的分词器的特殊 token；按普通字符学习。用 --document-separator "
        "可使文本在其中一个处结束"
    ),
    "{n} texts have carriage returns (line ends of Windows); they are learnt, and a prompt has "
    "none; for text files: tr -d '\\r' < FILE": (
        "{n} 段文本带有回车符（Windows 的换行）；模型会学到它们，而提示里没有；文本文件可用 "
        "tr -d '\\r' < FILE 去掉"
    ),
    "characters that may be damage, and are learnt: {as_is}": (
        "有的字符可能是损坏造成的，会被学到：{as_is}"
    ),
    "{n} lines of {as_is} are taken as part of the texts; if they separate texts: "
    "--document-separator='{as_is_again}'": (
        "{n} 行 {as_is} 被当作文本的一部分；如果它们是文本之间的分隔：--document-separator="
        "'{as_is_again}'"
    ),
    "{n} lines of {size} bytes on average, none blank; if each is a text of its own: "
    "--text-unit line": (
        "共 {n} 行，平均 {size} 字节，没有空行；如果每行是一段独立的文本：--text-unit line"
    ),
    "  texts          {list}": "  文本数         {list}",
    # as whole lines: the longest form that fits is taken
    "  texts          {n} pieces of long texts": "  文本数         长文本的 {n} 段",
    "  texts          {n} whole files, {m} pieces of long texts": (
        "  文本数         {n} 个完整的文件，长文本的 {m} 段"
    ),
    "{n} row": "{n} 行",
    "{n} conversation": "{n} 段对话",
    "{n} whole file": "{n} 个完整的文件",
    "{n} line": "{n} 行",
    "{n} paragraph": "{n} 段",
    "{n} rows": "{n} 行",
    "{n} conversations": "{n} 段对话",
    "{n} whole files": "{n} 个完整的文件",
    "{n} lines": "{n} 行",
    "{n} paragraphs": "{n} 段",
    "{n} ended by {as_is}": "{n} 段以 {as_is} 结束",
    "  held out       {n} documents and pieces of long ones, {tokens} tokens ({share})": (
        "  留出           {n} 篇文档和长文档的片段，{tokens} 个 token（{share}）"
    ),
    "  held out       {n} pieces of documents, {tokens} tokens ({share})": (
        "  留出           文档的 {n} 个片段，{tokens} 个 token（{share}）"
    ),
    "WARNING: {as_is}: both trained on and held out (--validation-path), so the held-out loss will "
    "be worthless": ("警告：{as_is} 既用来训练又被留出（--validation-path），所以留出损失没有意义"),
    "prepared {n} documents, {size} MB ({rate} MB/s)": (
        "已处理 {n} 篇文档，{size} MB（{rate} MB/秒）"
    ),
    "prepared {n} documents, {size} MB ({rate} MB/s, {left} min left)": (
        "已处理 {n} 篇文档，{size} MB（{rate} MB/秒，还剩 {left} 分钟）"
    ),
    "prepared {n} documents, {size} MB ({rate} MB/s, {left} s left)": (
        "已处理 {n} 篇文档，{size} MB（{rate} MB/秒，还剩 {left} 秒）"
    ),
    "1 line not JSON": "1 行不是 JSON",
    "{n} lines not JSON": "{n} 行不是 JSON",
    "1 line not UTF-8": "1 行不是 UTF-8",
    "{n} lines not UTF-8": "{n} 行不是 UTF-8",
    "1 line not CSV": "1 行不是 CSV",
    "{n} lines not CSV": "{n} 行不是 CSV",
    "1 line too long": "1 行太长",
    "{n} lines too long": "{n} 行太长",
    "1 line without text": "1 行没有文本",
    "{n} lines without text": "{n} 行没有文本",
    "1 line without tokens": "1 行没有 token",
    "{n} lines without tokens": "{n} 行没有 token",
    "1 unreadable file": "1 个文件读不了",
    "{n} unreadable files": "{n} 个文件读不了",
    "1 unreadable part": "1 个部分读不了",
    "{n} unreadable parts": "{n} 个部分读不了",
}
LABELS = {"not read       ": "未读取         ", " " * 15: " " * 15}
DATA |= {
    f"{indent}{label}{{as_is}}: {why}": f"{indent}{LABELS[label]}{{as_is}}：{WHY_NOT_READ[why]}"
    for indent in ("", "  ")
    for label in LABELS
    for why in WHY_NOT_READ
}
