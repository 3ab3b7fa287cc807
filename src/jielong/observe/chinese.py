"""What a run prints, in Chinese, by its English form (`present/finished.py`).

A value named `as_is` is a text of the user's and stays as it is.
"""

from jielong.observe.chinese_data import DATA
from jielong.observe.chinese_warnings import WARNINGS

SETUP = {
    "device     {what}": "设备       {what}",
    "resuming from {as_is}": "从 {as_is} 继续",
    "it was saved by an earlier version, which laid out the text in another way: until this epoch "
    "ends, some of the text may come twice and some not at all": (
        "它由旧版本保存，文本的排列方式不同：到本轮结束前，有些文本可能读两次，有些读不到"
    ),
    "shards     {address}: {n} files, {size} GB; copies in {folder}, of all datasets at most "
    "{most} GB": (
        "分片       {address}：{n} 个文件，{size} GB；副本在 {folder}，所有数据集最多 {most} GB"
    ),
    "shards     {n} files are fetched first, {size} GB": ("分片       先取 {n} 个文件，{size} GB"),
    "fetched {got} of {all} GB ({rate} MB/s, {left} min left)": (
        "已取 {got} GB，共 {all} GB（{rate} MB/秒，还剩 {left} 分钟）"
    ),
    "model      {n} parameters ({kind}: {layers} layers × {width}, {heads} heads, {kv} kv heads, "
    "vocabulary {v})": (
        "模型       {n} 参数（{kind}：{layers} 层 × {width}，{heads} 个头，{kv} 个 kv 头，词表 "
        "{v}）"
    ),
    "precision  {what}": "精度       {what}",
    "{dtype}: this CPU trains models in bfloat16 from a width of {least} on, where that is faster; "
    "this one is {width} wide": (
        "{dtype}：这个 CPU 从宽度 {least} 起用 bfloat16 训练模型，因为更快；这个模型宽 {width}"
    ),
    "{dtype}, as before": "{dtype}，与之前相同",
    "{dtype}, as before; slow here, where the CPU has no instructions for it": (
        "{dtype}，与之前相同；这里很慢，因为 CPU 没有它的指令"
    ),
    "float32, not float16 as before: that needs a GPU": "float32，而不是之前的 float16：那需要 GPU",
    "attention  {what}": "注意力     {what}",
    "parallel   DDP: each of {n} processes holds the whole model": (
        "并行       DDP：{n} 个进程各有整个模型"
    ),
    "parallel   {kind}: {n} processes share one copy of the model; gradients are added up {when}": (
        "并行       {kind}：{n} 个进程共有一份模型；梯度{when}"
    ),
    "parallel   {kind}: each {k} of {n} processes share a copy of the model; gradients are added "
    "up {when}": "并行       {kind}：{n} 个进程中每 {k} 个共有一份模型；梯度{when}",
    "saving     each process writes its part of a checkpoint (sharded); `jielong export` makes a "
    "Hugging Face folder of it": (
        "保存       每个进程写检查点中自己的部分（sharded）；`jielong export` 由它做出 Hugging "
        "Face 文件夹"
    ),
    "samples    none, and no suites: process 0 has too little memory for the whole model": (
        "样本       没有，也不做测评：0 号进程的内存放不下整个模型"
    ),
    "once an update": "每次更新相加一次",
    "with each micro-batch": "每个微批次都相加",
    "budget     {steps} steps of {first} to {windows} tokens = {n} tokens ({epochs} epochs, {each} "
    "per parameter)": (
        "预算       {steps} 步 × {first} 到 {windows} token = {n} token（{epochs} 轮，每参数 "
        "{each} 个）"
    ),
    "budget     {steps} steps of {windows} tokens = {n} tokens ({epochs} epochs, {each} per "
    "parameter)": (
        "预算       {steps} 步 × {windows} token = {n} token（{epochs} 轮，每参数 {each} 个）"
    ),
    "{a} to {b} × {n}": "{a} 到 {b} × {n}",
    "optimizer  {name}, peak learning rate {rate}, {schedule}, {n} warm-up steps": (
        "优化器     {name}，学习率峰值 {rate}，{schedule}，预热 {n} 步"
    ),
    "optimizer  {name}, peak learning rate {rate}, {schedule}, {n} warm-up steps; evaluating and "
    "saving averaged weights": (
        "优化器     {name}，学习率峰值 {rate}，{schedule}，预热 {n} 步；评估并保存平均后的权重"
    ),
    "teacher    {as_is}: half of what is learnt is what it predicts": (
        "教师       {as_is}：学到的一半是它的预测"
    ),
    "bigrams    {share} of the objective, falling to none by step {n}, is what follows each token "
    "in the whole text": (
        "二元组     目标的 {share}（到第 {n} 步降为零）是全文中每个 token 之后的统计"
    ),
    "epochs     the text is read {n} times; against memorising it: {list}": (
        "轮数       文本要读 {n} 遍；防止死记：{list}"
    ),
    "weight decay {n}": "权重衰减 {n}",
    "{share} of the input tokens replaced": "替换 {share} 的输入 token",
    "{share} of the tokens split": "拆分 {share} 的 token",
    "the text as it is from step {n} on": "第 {n} 步起使用原文",
    "a stop once the held-out loss has turned": "留出损失回升就停止",
    "causal over the whole window": "整个窗口内的因果注意力",
    "one call per document where documents are long, otherwise masked": (
        "长文档逐篇计算，其余用掩码"
    ),
    "exports    not to {name}: {why}": "导出       不能导出为 {name}：{why}",
    "ignored: {names}; {why}": "被忽略：{names}；{why}",
    "memory     micro-batches of {n} windows fit, of {all} in the global batch": (
        "内存       放得下 {n} 个窗口的微批次，全局批次有 {all} 个"
    ),
    "chosen     {width} wide, {layers} layers, vocabulary {v}: the largest that can see enough "
    "tokens in {minutes} min here, {n} tokens of a text of about {all}": (
        "选定       宽 {width}，{layers} 层，词表 {v}：在这里 {minutes} 分钟内能看到足够 token "
        "的最大模型，{n} 个，文本约 {all} 个"
    ),
    "the text is read {n} times: more would only memorise it. So the run ends sooner": (
        "文本要读 {n} 遍：再多只会死记。所以训练会提早结束"
    ),
    "teachers   {n}, with which the model shares the time: each reads the text {epochs} times": (
        "教师       {n} 个，先训练，与模型分享时间：各把文本读 {epochs} 遍"
    ),
    "window     {n} tokens, not {asked} as data.max_seq_len says: there are only {all} tokens of "
    "text to train on": (
        "窗口       {n} 个 token，而不是 data.max_seq_len 所说的 {asked}：可训练的文本只有 "
        "{all} 个 token"
    ),
    "the text is not as it was: {what}. This run goes on with the tokens it has; to train on the "
    "text as it is now, start another run from this one's model: --init-from {as_is} and a new "
    "--out-dir": (
        "文本后来改变了：{what}。本次训练继续用它已有的 token；要用现在的文本训练，请从本次的模型"
        "另起一次：--init-from {as_is} 加新的 --out-dir"
    ),
    "the tokenizer is not the one of {as_is}: the same id is another text, so its embeddings are "
    "learnt anew; leave --tokenizer out to use its own": (
        "分词器不是 {as_is} 的：同一个 id 是另一段文本，所以嵌入要重新学；去掉 --tokenizer "
        "就用它自己的"
    ),
    "AutoTokenizer will not give this run's ids: {what}": (
        "AutoTokenizer 给出的 id 与本次训练不同：{what}"
    ),
    "compiling …": "正在编译 …",
    "compile    not the layers of a divided model: they run as written (--compile on)": (
        "编译       不编译分开的模型的各层：它们按原样运行（--compile on 则编译）"
    ),
    "torch.compile does not work here, going on without: {why}": (
        "torch.compile 在这里不能用，不用它继续：{why}"
    ),
    "trying {n} learning rates …": "正在试 {n} 个学习率 …",
    "\n── teacher {n} of {all}": "\n── 教师 {n} / {all}",
    "\n── the model itself": "\n── 模型本身",
    "profile    the run is too short for one": "性能分析   训练太短，做不了",
    "profile    {as_is}/operations.txt and trace.json, which Perfetto shows": (
        "性能分析   {as_is}/operations.txt 和 trace.json（用 Perfetto 查看）"
    ),
}
PROGRESS = {
    "initial loss {loss}, expected ln({v}) = {e}": "初始损失 {loss}，应为 ln({v}) = {e}",
    "{beside}: higher, so the initial weights are confident and wrong": (
        "{beside}：偏高，说明初始权重自信而错误"
    ),
    "{beside}: lower, so the text is very uniform, or the targets leak into the input": (
        "{beside}：偏低，说明文本很单一，或目标泄漏进了输入"
    ),
    "{beside}: it is not a number, so this update is skipped": "{beside}：不是数，所以跳过这次更新",
    "step {step}/{total} · loss {loss} · lr {rate} · grad {norm} · {speed} tok/s · {left} left": (
        "第 {step}/{total} 步 · 损失 {loss} · 学习率 {rate} · 梯度 {norm} · {speed} token/秒 · "
        "还剩 {left}"
    ),
    "── step {step} · {of} loss {loss} · perplexity {p} · {bits} bits/byte": (
        "── 第 {step} 步 · {of}损失 {loss} · 困惑度 {p} · {bits} 比特/字节"
    ),
    "held-out": "留出文本",
    "whole held-out split:": "全部留出文本：",
    "older text, held-out": "旧文本，留出部分",
    "older text, whole held-out split:": "旧文本，全部留出部分：",
    "{as_is}, held-out": "{as_is}，留出部分",
    "{as_is}, whole held-out split:": "{as_is}，全部留出部分：",
    "older text": "旧文本",
    "── step {step} · training is {change} than expected: {now}M tokens instead of {before}M, to "
    "end in time": (
        "── 第 {step} 步 · 训练比预计{change}：改为 {now}M 个 token（原为 {before}M），以便按时结束"
    ),
    "slower": "慢",
    "faster": "快",
    "this run is complete; a larger budget needs --override": (
        "本次训练已完成；更大的预算需要 --override"
    ),
    "stopped after step {n}; the same command goes on from there": (
        "已停在第 {n} 步之后；同一条命令会从那里继续"
    ),
    "suite {name} is left out: {why}": "跳过测试集 {name}：{why}",
    "   looked for in {share} of the training text: in the shards that are read now, as the cache "
    "does not hold all": "   只在训练文本的 {share} 里查找：缓存装不下全部，所以只查现在读的分片",
    "{what}; training goes on": "{what}；训练继续",
    "the checks of this run are off: {why}": "本次训练的检查已关闭：{why}",
    "{page} has no curves without matplotlib: pip install 'jielong[plots]'": (
        "没有 matplotlib，{page} 就没有曲线：pip install 'jielong[plots]'"
    ),
    "{page} could not be written ({why})": "{page} 写不了（{why}）",
    "{name} failed and is now off ({why}); metrics.jsonl continues": (
        "{name} 出错，已关闭（{why}）；metrics.jsonl 继续记录"
    ),
    "out of memory at step {step}: micro-batches of {n} windows from now on, not {before}; the "
    "updates stay the same": (
        "第 {step} 步内存不足：今后微批次为 {n} 个窗口，不再是 {before} 个；每次更新不变"
    ),
    "step {step}: {what} at {where}: update skipped": (
        "第 {step} 步：{what}，在 {where}：跳过这次更新"
    ),
    "step {step}: the loss jumps to {loss}, {n} deviations above the latest, at {where}": (
        "第 {step} 步：损失跳到 {loss}，比最近的高 {n} 个标准差，在 {where}"
    ),
    "back to step {step}; steps {first} to {last} will be left out": (
        "回到第 {step} 步；第 {first} 到 {last} 步将被略过"
    ),
    "loss {loss}, gradient norm {norm}": "损失 {loss}，梯度范数 {norm}",
    "documents {list} of the training split": "训练文本的第 {list} 篇文档",
    "diverged so far: {beside}; a lower --learning-rate would help": (
        "目前训练是发散的：{beside}；降低 --learning-rate 会有帮助"
    ),
    "learnt nothing so far: {beside}; another --learning-rate would help": (
        "目前什么也没学到：{beside}；换一个 --learning-rate 会有帮助"
    ),
    "the run has diverged: {beside}; {what}; try a lower --learning-rate or a longer "
    "--warmup-steps": (
        "训练发散了：{beside}；{what}；试试更低的 --learning-rate，或更长的 --warmup-steps"
    ),
    "the run has learnt nothing: {beside}; try another --learning-rate, or more steps": (
        "训练什么也没学到：{beside}；试试别的 --learning-rate，或更多步数"
    ),
    "no checkpoint is better than knowing how frequent each token is: begin again, in another "
    "--out-dir": ("没有一个检查点比只知道每个 token 的频率更好：请换一个 --out-dir 重新开始"),
    "whether its checkpoints are of use was not measured, as no text is held out": (
        "没有留出文本，所以没有测量检查点是否可用"
    ),
    "there is no checkpoint": "没有检查点",
    "the last checkpoint of use is {as_is} (held-out loss {loss})": (
        "最后一个可用的检查点是 {as_is}（留出损失 {loss}）"
    ),
    "held-out loss {loss}, where a random guess has {a} and knowing only how frequent each token "
    "is {b}": ("留出损失 {loss}，而随机猜测是 {a}，只知道每个 token 的频率是 {b}"),
    "the held-out loss turned: {best} bits/byte at step {at} (epoch {a}) and {last} at step {end} "
    "(epoch {b}), as the model memorises the training text. The model is that of step {at_again}. "
    "{rest}": (
        "留出损失已回升：第 {at} 步（第 {a} 轮）{best} 比特/字节，第 {end} 步（第 {b} "
        "轮）{last}，因为模型在"
        "死记训练文本。模型取第 {at_again} 步的。{rest}"
    ),
    "The run ends here, not at step {n} (epoch {e}); --patience 0 would train on. More text helps "
    "most; otherwise fewer epochs, or more --weight-decay.": (
        "训练到此结束，而不是第 {n} 步（第 {e} 轮）；--patience 0 会继续训练。增加文本最有效；"
        "否则减少轮数，或加大 --weight-decay。"
    ),
    "More text helps most; otherwise fewer epochs, or more --weight-decay.": (
        "增加文本最有效；否则减少轮数，或加大 --weight-decay。"
    ),
}
VIEW = {
    "step": "步数",
    "loss": "损失",
    "speed": "速度",
    "sample": "样本",
    "starting": "准备中",
    "{left} left, ends {clock}": "还剩 {left}，{clock} 结束",
    "lr {rate} · grad {norm}": "学习率 {rate} · 梯度 {norm}",
    "{bits} bits/byte": "{bits} 比特/字节",
    "best {bits}": "最好 {bits}",
    "{n} tok/s": "{n} token/秒",
    "{share} of the peak (MFU)": "峰值的 {share}（MFU）",
    "memory {n} GB": "内存 {n} GB",
}
CHINESE: dict[str, str] = SETUP | DATA | PROGRESS | WARNINGS | VIEW
