"""What a run says of its text, in Chinese, by its English form."""

TEXT = {
    "  texts          {n} rows": "  每篇           {n} 行数据",
    "  texts          {n} conversations": "  每篇           {n} 段对话",
    "  texts          {n} whole file": "  每篇           {n} 个完整的文件",
    "  texts          {n} whole files": "  每篇           {n} 个完整的文件",
    "  texts          {n} pieces of long texts": "  每篇           长文本的 {n} 段",
    "  texts          {n} whole files, {m} pieces of long texts": (
        "  每篇           {n} 个完整的文件，长文本的 {m} 段"
    ),
    "  texts          {n} lines": "  每篇           {n} 行",
    "  texts          {n} paragraphs": "  每篇           {n} 个段落",
    "  texts          {as_is}": "  每篇           {as_is}",
    "none": "无",
    "  not read       {as_is}: no format of text": "  未读取         {as_is}：不是文本格式",
    "  held out       {n} pieces of documents, {tokens} tokens ({share})": (
        "  留出           文档中的 {n} 个片段，{tokens} 个 token（{share}）"
    ),
    "  held out       {n} documents and pieces of long ones, {tokens} tokens ({share})": (
        "  留出           {n} 篇文档和长文档的片段，{tokens} 个 token（{share}）"
    ),
    "too little text to hold any out, or all of it repeated: nothing tells learning from "
    "memorising; add text, or give --validation-path": (
        "文本太少，或全是重复，留不出验证文本：无法分辨是学会了还是背下来了；请增加文本，或给出 "
        "--validation-path"
    ),
    "  WARNING        about {share} of the held-out text also stands in the training text: its "
    "loss will be too low": (
        "  警告           留出文本约有 {share} 也在训练文本里：它的损失会偏低"
    ),
    "{n} training document also occurs in the held-out text: its loss will be too low": (
        "{n} 篇训练文档也出现在留出文本里：它的损失会偏低"
    ),
    "{n} training documents also occur in the held-out text: its loss will be too low": (
        "{n} 篇训练文档也出现在留出文本里：它的损失会偏低"
    ),
    "WARNING: {as_is}: both trained on and held out (--validation-path), so the held-out loss will "
    "be worthless": ("警告：{as_is}：既用来训练又用来验证（--validation-path），留出损失没有意义"),
    "WARNING: {as_is}: both trained on and held out (--validation-path), so the held-out loss says "
    "how much was memorised, not how good the model is; leave --validation-path away to hold out a "
    "part": (
        "警告：{as_is}：既用来训练又用来验证（--validation-path），留出损失只说明背下了多少，而不是"
        "模型有多好；去掉 --validation-path 就会自动留出一部分"
    ),
    "{n} documents already have bos or eos in their text: not added twice": (
        "{n} 篇文档的文本里已经有 bos 或 eos：不再添加"
    ),
    "the tokenizer has no eos token: the model cannot learn where a text ends; name one with "
    "--eos-token": "分词器没有 eos：模型学不到文本在哪里结束；请用 --eos-token 指定一个",
    "the tokenizer has no bos token either: no token separates documents": (
        "分词器也没有 bos：文档之间没有 token 分隔"
    ),
    "special tokens inside texts: {as_is}; they are trained as such.": (
        "文本里有特殊 token：{as_is}；就按特殊 token 训练。"
    ),
    "special tokens inside texts: {as_is}; they are trained as such. --document-separator "
    "'{as_is_2}' ends a text there": (
        "文本里有特殊 token：{as_is}；就按特殊 token 训练。--document-separator '{as_is_2}' "
        "会在那里结束一篇文本"
    ),
    "{as_is} in the texts look like special tokens of another tokenizer; they are learnt as plain "
    "characters. --document-separator ends texts at one": (
        "文本里的 {as_is} 像是别的分词器的特殊 token；这里当作普通字符来学。--document-separator "
        "可以让文本在它那里结束"
    ),
    "{n} texts have carriage returns (line ends of Windows); they are learnt, and a prompt has "
    "none; for text files: tr -d '\\r' < FILE": (
        "{n} 篇文本里有回车符（Windows 的换行）；它们会被学进去，而提示里没有；文本文件可用："
        "tr -d '\\r' < FILE"
    ),
    "characters that may be damage, and are learnt: {as_is}": (
        "可能是损坏造成的字符，也会被学进去：{as_is}"
    ),
    "{n} lines of {as_is} are taken as part of the texts; if they separate texts: "
    "--document-separator='{as_is_2}'": (
        "{n} 行 {as_is} 当作文本的一部分；如果它们分隔文本：--document-separator='{as_is_2}'"
    ),
    "{n} lines of {size} bytes on average, none blank; if each is a text of its own: --text-unit "
    "line": "{n} 行，平均 {size} 字节，没有空行；如果每行是一篇文本：--text-unit line",
    "{as_is}: named more than once, read as often": "{as_is}：重复给出，因此重复读取",
    "{as_is}: trained on, although named like held-out text; to measure on it instead, leave it "
    "out and give --validation-path {as_is_2}": (
        "{as_is}：名字像留出文本，却用来训练；要用它来验证，请从训练文本中去掉，并给出 "
        "--validation-path {as_is_2}"
    ),
    "{as_is}: read as JSON, which it holds": "{as_is}：内容是 JSON，按 JSON 读取",
    "{as_is}: read as {codec}": "{as_is}：按 {codec} 读取",
    "prepared {n} documents, {size} MB ({rate} MB/s, {left} s left)": (
        "已处理 {n} 篇文档，{size} MB（{rate} MB/秒，还剩 {left} 秒）"
    ),
    "prepared {n} documents, {size} MB ({rate} MB/s, {left} min left)": (
        "已处理 {n} 篇文档，{size} MB（{rate} MB/秒，还剩 {left} 分钟）"
    ),
    "prepared {n} documents, {size} MB ({rate} MB/s)": (
        "已处理 {n} 篇文档，{size} MB（{rate} MB/秒）"
    ),
}
