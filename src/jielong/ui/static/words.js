// The words of the page: English where they are said, Chinese from the table below.

let chosen = localStorage.getItem("language") ??
  (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

/** The language that is shown: en or zh. */
export function language() {
  return chosen;
}

export function setLanguage(name) {
  chosen = name;
  localStorage.setItem("language", name);
}

/** Return a sentence in the language that is shown, its values filled in. */
export function say(sentence, values = {}) {
  const words = (chosen === "zh" && CHINESE[sentence]) || sentence;
  return words.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

const CHINESE = {
  "Word chain": "接龙",
  "Side by side": "并排比较",
  Watch: "观察训练",
  "Look inside": "查看内部",
  Views: "视图",
  Colours: "配色",
  auto: "自动",
  light: "浅色",
  dark: "深色",
  Run: "训练",
  Runs: "训练",
  Checkpoint: "检查点",
  "the best": "最好的",
  "the last": "最后的",
  "step {n}": "第 {n} 步",
  "loading …": "加载中……",
  "no checkpoint yet": "还没有检查点",
  "{n} parameters": "{n} 参数",
  "context {n}": "上下文 {n}",
  "The server does not answer. Has it ended?": "服务器没有响应。它结束了吗？",
  Temperature: "温度",
  "Repetition penalty": "重复惩罚",
  "below 1 the likely become likelier; 0 always takes the likeliest":
    "低于 1 时可能的更可能；0 总取最可能的",
  "only the likeliest tokens that together have this share": "只取概率之和达到此值的最可能的 token",
  "only so many of the likeliest tokens; 0 is off": "只取最可能的这么多个 token；0 为关闭",
  "only tokens with at least this share of the likeliest one's probability":
    "只取概率不低于最可能者这一比例的 token",
  "above 1, tokens that are in the text already become less likely":
    "高于 1 时，文中已有的 token 变得不太可能",
  off: "关闭",
  Reset: "重置",
  Knobs: "采样旋钮",
  "Surprise in bits:": "意外程度（比特）：",
  bits: "比特",
  "What was likely here": "此处可能的 token",
  "Candidates for the next token": "下一个 token 的候选",
  "drawn from {n} tokens; all others together {share}": "从 {n} 个 token 中抽取；其余合计 {share}",
  "end of the text": "文本结束",
  "the model's own: {share}": "模型本身：{share}",
  "key {key}": "按键 {key}",
  "stands here": "已在此处",
  "tried before": "试过",
  "The text, token by token": "逐个 token 的文本",
  "What may come next": "接下来可能是什么",
  "What else was likely here": "此处还可能是什么",
  random: "随机",
  slow: "慢",
  steady: "适中",
  fast: "快",
  "▶ Go on": "▶ 接下去",
  "■ Stop": "■ 停",
  "+1 Draw one": "+1 抽一个",
  "← Step back": "← 退一步",
  Begin: "开始",
  "Text to begin with": "开头的文本",
  Tokens: "token 数",
  Pace: "快慢",
  Seed: "种子",
  ["Keys: 1 to 0 take a candidate, G goes on, N draws one, Backspace steps back, "
    + "Escape stops. In the text, arrows move and Enter shows what else was likely."]:
    "按键：1 到 0 选候选，G 接下去，N 抽一个，Backspace 退一步，Escape 停。"
    + "在文本中，方向键移动，Enter 显示此处还可能是什么。",
  "The text": "文本",
  "What was tried": "试过的",
  "Take another candidate, or step back and go on: each try stays here.":
    "换一个候选，或退回再接下去：每次尝试都留在这里。",
  "The model has ended the text here.": "模型在此结束了文本。",
  "{n} tokens written": "写了 {n} 个 token",
  "Both have ended.": "两边都结束了。",
  typed: "输入",
  written: "写出",
  "{what}: {n} tokens, {bits} bits each": "{what}：{n} 个 token，每个 {bits} 比特",
  "Held-out text (bits per byte)": "留出文本（比特/字节）",
  "Loss (nats per token)": "损失（nat/token）",
  "Learning rate": "学习率",
  "Gradient norm": "梯度范数",
  "Speed (tokens per second)": "速度（token/秒）",
  "Busiest expert over the mean": "最忙专家的负载与平均之比",
  steps: "步数",
  tokens: "token",
  time: "时间",
  Over: "横轴",
  "What it writes": "它写出的文字",
  Prompt: "提示",
  "all steps": "所有步",
  "nothing is recorded yet": "尚无记录",
  "There is no run here to watch, only models.": "这里没有可观察的训练，只有模型。",
  "held-out": "留出文本",
  training: "训练",
  latest: "最新",
  "no samples yet": "还没有样本",
  "step {n} of {total}": "第 {n} 步，共 {total} 步",
  "best {bits} bits/byte at step {n}": "最好 {bits} 比特/字节（第 {n} 步）",
  "progress of {name}": "{name} 的进度",
  "cannot be read: {what}": "无法读取：{what}",
  running: "训练中",
  finished: "已完成",
  stopped: "已停止",
  failed: "出错",
  "What it predicts": "它的预测",
  "Layers (logit lens)": "各层（logit lens）",
  "Attention heads": "注意力头",
  Experts: "专家",
  "Experts (this model has none)": "专家（此模型没有）",
  "Nearest tokens": "最近的 token",
  Tokenizer: "分词器",
  "The model's parts": "模型的部件",
  "A batch of the data": "一批数据",
  Schedule: "学习率与批次计划",
  Text: "文本",
  "Step, from 0": "步，从 0 起",
  "Layer, 0 for all": "层，0 为全部",
  "without noise": "不加噪声",
  Look: "查看",
  View: "视图",
  "looking …": "查看中……",
};
