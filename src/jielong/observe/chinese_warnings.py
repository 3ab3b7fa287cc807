"""What a run prints when something looks wrong, in Chinese, by its English form."""

WARNINGS = {
    "from here on the text is read for more than the {n}th time: the more often, the less it "
    "teaches. Watch the held-out loss; more text helps most": (
        "从这里起文本已读过 {n} 遍以上：读得越多，学到的越少。请看留出文本的损失；增加文本最有效"
    ),
    "from here on the text is read for more than the {n}th time: the more often, the less it "
    "teaches, and no text is held out that would show when it is only memorised "
    "(--validation-fraction, --validation-path). More text helps most": (
        "从这里起文本已读过 {n} 遍以上：读得越多，学到的越少，而且没有留出文本来显示模型何时只是在"
        "死记（--validation-fraction、--validation-path）。增加文本最有效"
    ),
    "step {step}: {finding}": "第 {step} 步：{finding}",
    "the loss, {now}, is far above ln({v}) = {uniform}, that of a random guess: the run diverges. "
    "Try a lower --learning-rate or a longer --warmup-steps": (
        "损失 {now} 远高于随机猜测的 ln({v}) = {uniform}：训练发散了。试试更低的 --learning-rate，"
        "或更长的 --warmup-steps"
    ),
    "after {n} steps the loss, {now}, is still that of a random guess, ln({v}) = {uniform}. Try "
    "another --learning-rate, and look whether the text is what you meant it to be": (
        "{n} 步之后损失 {now} 仍是随机猜测的水平 ln({v}) = {uniform}。试试别的 --learning-rate，"
        "并看看文本是不是你想要的"
    ),
    "the loss has been flat since step {step} ({before}, now {now}). If it is not good enough, try "
    "another --learning-rate, a larger model or more text; more steps alone gain little": (
        "损失自第 {step} 步起不再下降（{before}，现在 {now}）。如果还不够好，试试别的 "
        "--learning-rate、"
        "更大的模型或更多文本；只加步数收获很少"
    ),
    "the gradient norm has grown to {now}, {times} times what it was, and the loss does not fall: "
    "the run may diverge. Try a lower --learning-rate or --grad-clip": (
        "梯度范数涨到 {now}，是原来的 {times} 倍，而损失没有下降：训练可能发散。"
        "试试更低的 --learning-rate 或 --grad-clip"
    ),
    "the held-out loss rises ({best} at step {step}, now {now}) while the training loss falls: the "
    "model memorises the text. More text helps most; else fewer --epochs, or more "
    "--weight-decay or "
    "--dropout. The best checkpoint is kept": (
        "留出损失上升（第 {step} 步 {best}，现在 {now}），训练损失却在下降：模型在死记文本。"
        "增加文本最有效；"
        "否则减少 --epochs，或加大 --weight-decay 或 --dropout。最好的检查点会保留"
    ),
    "other programs use {share} of this machine's processors: training is slower by that or more, "
    "since its threads wait for each other. `top` shows which they are": (
        "其他程序占用了本机 {share} 的处理器：训练因此变慢，幅度可能更大，因为它的线程要互相等待。"
        "用 `top` 可查看是哪些程序"
    ),
    "training has slowed down to {now} tokens/s, from {before}: another program may use this "
    "machine, or it may be too hot. `top`, or nvidia-smi, shows which": (
        "训练慢到 {now} token/秒，原来是 {before}：可能有别的程序在用这台机器，或机器过热。"
        "用 `top` 或 nvidia-smi 查看"
    ),
    "rank {n} takes {s} s for its part of a step, the others {t}, and all wait for it: another "
    "program may use its machine, or it may be too hot. ranks.jsonl says which machine it is": (
        "rank {n} 完成自己那部分一步要 {s} 秒，其他的 {t} 秒，大家都在等它："
        "可能有别的程序在用它的机器，或机器过热。ranks.jsonl 里写着是哪台机器"
    ),
    "no token is sent to expert {expert} of layer {layer}, in {n} records: its weights are of no "
    "use. Try a larger --router-aux-loss-coef, or --router-aux-loss bias": (
        "在 {n} 条记录里，没有 token 送往第 {layer} 层的专家 {expert}：它的权重没有用处。"
        "试试更大的 --router-aux-loss-coef，或 --router-aux-loss bias"
    ),
}
