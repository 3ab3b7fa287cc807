"""The sentences of `say` in Chinese; a test holds them against those that are said."""

from __future__ import annotations

WORDS = {
    "attention": "注意力",
    "batch": "批次",
    "bits": "比特",
    "bits per byte": "每字节比特",
    "bytes": "字节",
    "bytes a token": "每 token 字节",
    "characters a token": "每 token 字符",
    "copies": "份数",
    "documents": "文档",
    "embedding": "嵌入",
    "embeddings": "嵌入",
    "feed-forward": "前馈",
    "FLOPs a token": "每 token FLOPs",
    "head": "头",
    "in": "输入",
    "in the loss": "计入损失",
    "layer": "层",
    "learning rate": "学习率",
    "likeliest is true": "首选即正确",
    "mean cosine of two tokens": "两个 token 的平均余弦",
    "mean length": "平均长度",
    "module": "模块",
    "noise": "噪声",
    "norms": "归一化",
    "of them active": "其中激活",
    "on itself": "看自己",
    "on the first": "看第一个",
    "on the previous": "看前一个",
    "optimizer": "优化器",
    "out": "输出",
    "output head": "输出头",
    "padding": "填充",
    "parameters": "参数",
    "part": "部分",
    "peak learning rate": "学习率峰值",
    "piece": "片段",
    "position": "位置",
    "positions": "个位置",
    "probability": "概率",
    "rank": "名次",
    "schedule": "调度",
    "shape": "形状",
    "share": "占比",
    "step": "步",
    "steps": "步数",
    "surprise": "意外程度",
    "text": "文本",
    "the likeliest": "最可能的",
    "token": "token",
    "tokenizer": "分词器",
    "tokens": "token 数",
    "tokens in a batch": "每批 token 数",
    "true": "正确",
    "loss": "损失",
    "perplexity": "困惑度",
    "speed": "速度",
    "{n:.4f} nats per token": "每 token {n:.4f} nat",
    "{n:,} tokens, {bytes:,} bytes": "{n:,} 个 token，{bytes:,} 字节",
    "vocabulary": "词表",
    "weight decay": "权重衰减",
    "windows": "窗口",
    "looks back, tokens": "回看距离（token）",
}
DATA = {
    "Batch of step {step} of {total}, epoch {epoch}": (
        "第 {step} 步的批次（共 {total} 步），第 {epoch} 轮"
    ),
    "X goes in, Y is to be predicted: the next token of X. Where Y is –, nothing counts in the "
    "loss.": ("X 是输入，Y 是要预测的：X 的下一个 token。Y 为“–”的地方不计入损失。"),
    " A line is where a document begins.": "竖线处是一篇新文档的开头。",
    " Attention does not cross it.": "注意力不会越过它。",
    " Attention crosses it (--document-mask false).": "注意力会越过它（--document-mask false）。",
    " Tinted inputs were replaced by noise.": "着色的输入被噪声替换过。",
    "Row {row}: window {window:,}, documents: {documents}": (
        "第 {row} 行：窗口 {window:,}，文档数：{documents}"
    ),
    "packed: documents one after another, cut into windows": "拼接：文档首尾相接，再切成窗口",
    "padded: one document a row": "填充：每行一篇文档",
    "{n:,}, {each:.1f} a window": "{n:,}，每个窗口 {each:.1f}",
    "{n:,} targets ({share:.1%})": "{n:,} 个目标（{share:.1%}）",
    "{share:.0%} of the input tokens replaced": "替换 {share:.0%} 的输入 token",
    "{share:.0%} of the tokens split": "拆分 {share:.0%} 的 token",
    "… {n} more positions": "…… 还有 {n} 个位置",
    "Text of {characters:,} characters, {bytes:,} bytes": (
        "文本：{characters:,} 个字符，{bytes:,} 字节"
    ),
}
MODEL = {
    "{family} of {size} parameters": "{family}，{size} 参数",
    "{forward:.3g} forward, {training:.3g} forward and backward": (
        "前向 {forward:.3g}，前向加反向 {training:.3g}"
    ),
    "Where the parameters are": "参数在哪里",
    "Parts (N stands for each of {n} layers)": "各部分（N 代表 {n} 层中的每一层）",
    "The way of a batch of {rows} × {window} tokens": "一个 {rows} × {window} token 的批次走过的路",
    "Schedule of {n:,} steps": "{n:,} 步的调度",
    "{n:,} steps of warm-up": "预热 {n:,} 步",
    "{n:,} steps of decay at the end": "最后 {n:,} 步衰减",
    "{n:,}, {e:.3g} epochs": "{n:,}，{e:.3g} 轮",
    "weight decay: share taken from a weight in a step (learning rate × decay)": (
        "权重衰减：每步从权重中减去的比例（学习率 × 衰减）"
    ),
}
READING = {
    "The last {n} tokens are left out: the model's context is full before them.": (
        "最后 {n} 个 token 没有读：模型的上下文在它们之前就满了。"
    ),
    "What the model predicts": "模型的预测",
    "Surprise": "意外程度",
    "{bits:.1f} bits over {n} tokens, {each:.2f} a token (by chance {chance:.2f})": (
        "{n} 个 token 共 {bits:.1f} 比特，每个 {each:.2f}（随机猜测为 {chance:.2f}）"
    ),
    "The deeper the tint of a token, the more it surprises the model. Below each: what the model "
    "holds for likeliest there, tinted by its probability.": (
        "token 的颜色越深，模型越感到意外。每个下面是模型认为那里最可能的 token，按概率着色。"
    ),
    "The likeliest tokens at each place": "每个位置最可能的 token",
    "Token by token": "逐个 token",
    "Layers (logit lens)": "各层（logit lens）",
    "layer {n}": "第 {n} 层",
    "What each layer would predict": "每一层会预测什么",
    "Below each token: what each layer would predict to follow it, if its output went straight to "
    "the head; tinted by probability, ✓ where it is true.": (
        "每个 token 下面：如果这一层的输出直接送进输出头，会预测接下来是什么；"
        "按概率着色，✓ 表示正确。"
    ),
    "Surprise by the true tokens, bits a token": "对正确 token 的意外程度（每 token 比特）",
    "{bits:.2f} bits, {share:.0%} as the last": "{bits:.2f} 比特，{share:.0%} 与最后一层相同",
    "Attention over {n} tokens": "{n} 个 token 上的注意力",
    "A row is a token that looks, a column a token that is looked at; the more a square stands "
    "out, the more attention. A token sees itself and those before it.": (
        "行是在看的 token，列是被看的 token；方格越醒目，注意力越多。token 只能看到自己和它之前的。"
    ),
    "Heads": "各个头",
    "layer {layer} head {head}": "层 {layer} 头 {head}",
    "give --layer, or --html FILE": "请用 --layer 或 --html FILE 查看",
    "What each head attends to": "每个头在看什么",
    "Experts of {n} tokens": "{n} 个 token 的专家",
    "Below each token: the experts that it is sent to, the one that counts most first, which gives "
    "the colour.": "每个 token 下面：它被送往的专家，权重最大的在前，并决定颜色。",
    "Which experts": "哪些专家",
    "expert {n}": "专家 {n}",
    "How often each was chosen": "每个专家被选中的次数",
    "The same as numbers": "同上，用数字表示",
    "No token of this text goes to: {experts}": "这段文本没有 token 去往：{experts}",
    "Embeddings": "嵌入",
    "This text is {n} tokens: each by itself.": "这段文本是 {n} 个 token：逐个查看。",
    "Nearest to {text} (id {token}, length {norm:.3f})": (
        "离 {text} 最近的（id {token}，长度 {norm:.3f}）"
    ),
}
PLAN = {
    "Plan: {size} parameters, {tokens:.3g}M tokens": "计划：{size} 参数，{tokens:.3g}M token",
    "Parameters by part": "各部分的参数",
    "Memory by kind, at the peak of an update": "各类内存（一次更新的峰值）",
    "Time": "时间",
    "Python and torch": "Python 和 torch",
    "activations": "激活值",
    "arithmetic": "运算量",
    "average of the weights": "权重平均",
    "budget": "预算",
    "cost": "费用",
    "data": "数据",
    "gradients": "梯度",
    "logits": "logits",
    "memory": "内存",
    "time": "时间",
    "tokenizer and dataset": "分词器和数据集",
    "training": "训练",
    "validation and checkpoints": "验证和检查点",
    "weights": "权重",
    "{tokens:,} tokens, {documents:,} documents (half of them up to {median:,} tokens), {held:,} "
    "tokens held out": (
        "{tokens:,} 个 token，{documents:,} 篇文档（一半不超过 {median:,} 个 token），"
        "留出 {held:,} 个 token 作验证"
    ),
    "{steps:,} steps, {tokens:,} tokens: {ratio:.2g} a parameter, the text {epochs:.3g} times": (
        "{steps:,} 步，{tokens:,} 个 token：每参数 {ratio:.2g} 个，文本读 {epochs:.3g} 遍"
    ),
    "{each:.3g} FLOPs a token, {all:.3g} in all": "每 token {each:.3g} FLOPs，共 {all:.3g}",
    "of {available} free": "（可用 {available}）",
    "batches of {batch} × {window}, {micro} at once": (
        "批次 {batch} × {window}，一次算 {micro} 个窗口"
    ),
    "{speed:,.0f} tokens/s": "{speed:,.0f} token/秒",
    "measured here: {device}": "在本机实测：{device}",
    "{device}, at an assumed {mfu:.0%} of its peak (--mfu)": (
        "{device}，假定达到峰值的 {mfu:.0%}（--mfu）"
    ),
    "{cost:.2f} at {price:g} an hour": "{cost:.2f}（每小时 {price:g}）",
    "Not even one window of {window:,} tokens fits into memory: take a smaller model, or a shorter "
    "--max-seq-len.": (
        "内存连一个 {window:,} token 的窗口都放不下：请用更小的模型，或更短的 --max-seq-len。"
    ),
    "Micro-batches of {wanted} windows do not fit, of {fits} they do: training will take these, "
    "and each update stays the same.": (
        "{wanted} 个窗口的微批次放不下，{fits} 个可以：训练会用后者，每次更新不变。"
    ),
    "No text is held out: nothing will tell learning from memorising. Add text, or give "
    "--validation-path.": (
        "没有留出验证文本：无从区分学会和死记。请增加文本，或给出 --validation-path。"
    ),
    "The text is read {epochs:.0f} times: beyond {most} it is only memorised. Take fewer --epochs, "
    "or more text.": (
        "文本要读 {epochs:.0f} 遍：超过 {most} 遍只是死记。请减少 --epochs，或增加文本。"
    ),
    "The text is read {epochs:.1f} times: from about {fresh} on, new text teaches clearly more "
    "than the same text again.": (
        "文本要读 {epochs:.1f} 遍：大约 {fresh} 遍之后，新文本明显比重读同样的文本更有用。"
    ),
    "Too little for this model: it sees {ratio:.2g} tokens a parameter, and below 0.6 a smaller "
    "model ends better. Take a smaller one, or train longer.": (
        "对这个模型太少：每参数只看到 {ratio:.2g} 个 token，低于 0.6 时更小的模型结果更好。"
        "请用更小的模型，或训练更久。"
    ),
    "The vocabulary is large for this text: each of {vocabulary:,} tokens stands in it {times:.0f} "
    "times on average, and its embeddings are {share:.0%} of the model. About {fitting:,} would do "
    "(--vocab-size).": (
        "词表对这段文本来说太大：{vocabulary:,} 个 token 平均各出现 {times:.0f} 次，"
        "嵌入占模型的 {share:.0%}。大约 {fitting:,} 就够了（--vocab-size）。"
    ),
    "A window of {window:,} tokens is longer than most documents: 95% have at most {longest:,}, "
    "and attention stays within a document. A shorter --max-seq-len teaches the same.": (
        "{window:,} token 的窗口比大多数文档长：95% 的文档不超过 {longest:,}，"
        "而注意力不会越过文档。更短的 --max-seq-len 学到的一样多。"
    ),
    "A model of width {width} is too narrow to keep this GPU busy: expect more time than is said "
    "here.": "宽度 {width} 的模型太窄，喂不饱这块 GPU：实际时间会比这里说的长。",
}
END = {
    "run": "训练",
    "checkpoint": "检查点",
    " (the best; the last is of step {n})": "（最好的；最后一个是第 {n} 步的）",
    "report": "报告",
    "held-out": "留出文本",
    "older text": "旧文本",
    "loss {loss:.4f} · perplexity {p} · {bits} bits per byte": (
        "损失 {loss:.4f} · 困惑度 {p} · {bits} 比特/字节"
    ),
    "{bits} bits per byte": "{bits} 比特/字节",
    "{n:,} tokens, {e:.2g} epochs": "{n:,} 个 token，{e:.2g} 轮",
    "not held out": "没有留出",
    "next steps": "接下来",
    "continue a text": "续写一段文本",
    "continue lines that you type": "续写你输入的每一行",
    "measure loss on another text": "测量另一段文本上的损失",
}
COMMANDS = {
    "model": "模型",
    "a model": "模型",
    "context {n:,} tokens": "上下文 {n:,} 个 token",
    "at once": "同时",
    "{n} texts ({size:,.0f} MiB of cache)": "{n} 段文本（缓存 {size:,.0f} MiB）",
    "{n} may wait": "{n} 个可以排队",
    "OpenAI's; with chat": "OpenAI 的；可对话",
    "OpenAI's; without chat": "OpenAI 的；不可对话",
    "page": "页面",
    "no checkpoint yet, only to be watched": "还没有检查点，只能观看",
    "Ctrl-C ends it.": "按 Ctrl-C 结束。",
    "Type the beginning of a text. An empty line or Ctrl-D quits.": (
        "请输入一段文本的开头。空行或 Ctrl-D 退出。"
    ),
    "{file} is not used here; transformers samples by it as with {flags}": (
        "这里不用 {file}；transformers 按它采样，相当于 {flags}"
    ),
    "{best}: the best on held-out text; the last is {last} (--checkpoint last)": (
        "{best}：留出文本上最好的；最后一个是 {last}（--checkpoint last）"
    ),
    "{family} model: {folder}": "{family} 模型：{folder}",
    "assumed {what} (change with --config FILE.json)": (
        "假定 {what}（可用 --config FILE.json 更改）"
    ),
}
CHINESE: dict[str, str] = WORDS | DATA | MODEL | READING | PLAN | END | COMMANDS
