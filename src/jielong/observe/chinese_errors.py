"""Mistakes that are made often, in Chinese, by their English form; the others are told in English.

The command line alone says errors in Chinese: what Python raises stays English.
"""

WORDS = {
    "Permission denied": "没有权限",
    "No space left on device": "磁盘已满",
    "No such file or directory": "没有这个文件或文件夹",
    "Is a directory": "它是文件夹",
    "Address already in use": "端口已被占用",
    "Read-only file system": "文件系统是只读的",
}

COMMAND = {
    "no font of this machine has Chinese, so the picture shows boxes instead: install one (Noto "
    "Sans CJK, say), or use --html": (
        "本机没有中文字体，图里只能显示方框：请安装一种（例如 Noto Sans CJK），或用 --html"
    ),
    "pictures need matplotlib: pip install 'jielong[plots]'; text in the terminal and --json do "
    "without": (
        "画图需要 matplotlib：pip install 'jielong[plots]'；终端里的文字和 --json 不需要它"
    ),
    "jielong {as_is} needs an extra: {as_is_fix}": "jielong {as_is} 还要安装：{as_is_fix}",
    "no command {as_is}; there are: {as_is_known}": "没有 {as_is} 这个命令；有：{as_is_known}",
    "no command {as_is}; did you mean {as_is_ours}?; there are: {as_is_known}": (
        "没有 {as_is} 这个命令；是不是 {as_is_ours}？有：{as_is_known}"
    ),
    "unknown flag {as_is}; see --help": "没有 {as_is} 这个选项；见 --help",
    "unknown flag {as_is}; did you mean {as_is_ours}?; see --help": (
        "没有 {as_is} 这个选项；是不是 {as_is_ours}？见 --help"
    ),
    "unknown flag {as_is}; it is {as_is_ours} here; see --help": (
        "没有 {as_is} 这个选项；这里叫 {as_is_ours}；见 --help"
    ),
    "unexpected argument {as_is}; quote texts that contain spaces": (
        "多出的参数 {as_is}；含空格的文本要加引号"
    ),
    "unexpected argument {as_is}; name text with --data-path {as_is_given}": (
        "多出的参数 {as_is}；文本用 --data-path {as_is_given} 指定"
    ),
    "the following arguments are required: {as_is}; see {as_is_command} --help": (
        "缺少必需的参数：{as_is}；见 {as_is_command} --help"
    ),
    "argument {as_is}: expected one argument; see {as_is_command} --help": (
        "选项 {as_is} 后面要有一个值；见 {as_is_command} --help"
    ),
    "argument {as_is}: invalid choice: {as_is_given} (choose from {as_is_known}); see "
    "{as_is_command} --help": (
        "{as_is}：没有 {as_is_given} 这个选择（可选：{as_is_known}）；见 {as_is_command} --help"
    ),
    "{as_is} is a folder: name the file to write": "{as_is} 是文件夹：请写出文件名",
    "{as_is}: there is no folder {as_is_parent}: make it, or name another": (
        "{as_is}：没有文件夹 {as_is_parent}：请先建立，或换一个"
    ),
    "cannot listen on {as_is}, port {port}: {why}; give --host or --port": (
        "不能在 {as_is} 的端口 {port} 上监听：{why}；请给 --host 或 --port"
    ),
}

SETTINGS = {
    "{as_is} is not a valid {as_is_type}": "{as_is} 不是有效的 {as_is_type}",
    "{as_is} is not a valid {as_is_type} (use true or false)": (
        "{as_is} 不是有效的 {as_is_type}（用 true 或 false）"
    ),
    "{as_is} is not one of {as_is_known}": "{as_is} 不在可选值之中：{as_is_known}",
    "{as_is} is not one of {as_is_known}; did you mean {as_is_ours}?": (
        "{as_is} 不在可选值之中：{as_is_known}；是不是 {as_is_ours}？"
    ),
    "{as_is} is below its least value {n}": "{as_is} 小于最小值 {n}",
    "{as_is} is above its largest value {n}": "{as_is} 大于最大值 {n}",
    "{as_is} and {as_is_other} both set a budget: give one": (
        "{as_is} 与 {as_is_other} 都规定了训练量：只给一个"
    ),
    "unknown setting {as_is}": "没有 {as_is} 这个设置",
    "unknown setting {as_is}; did you mean {as_is_ours}?": (
        "没有 {as_is} 这个设置；是不是 {as_is_ours}？"
    ),
    "unknown preset {as_is} (presets: {as_is_known})": "没有 {as_is} 这个预设（有：{as_is_known}）",
    "unknown preset {as_is}; did you mean {as_is_ours}? (presets: {as_is_known})": (
        "没有 {as_is} 这个预设；是不是 {as_is_ours}？（有：{as_is_known}）"
    ),
    "{as_is}: not valid TOML: {as_is_why}": "{as_is}：不是有效的 TOML：{as_is_why}",
    "{as_is}: cannot be read: {why}": "{as_is}：不能读取：{why}",
    "data.max_seq_len={n} is longer than model.max_position_embeddings={most}": (
        "data.max_seq_len={n} 超过 model.max_position_embeddings={most}"
    ),
    "model.hidden_size={n} is not divisible by num_attention_heads={heads}: change one, or set "
    "head_dim": (
        "model.hidden_size={n} 不能被 num_attention_heads={heads} 整除：改一个，或设置 head_dim"
    ),
    "model.num_attention_heads={n} is not a multiple of num_key_value_heads={kv}": (
        "model.num_attention_heads={n} 不是 num_key_value_heads={kv} 的倍数"
    ),
    "training.device=cuda, but torch sees no GPU (CUDA of the build: {as_is}); install a CUDA "
    "build of torch, or use --device cpu": (
        "training.device=cuda，但 torch 看不到 GPU（编译时的 CUDA：{as_is}）；"
        "请装带 CUDA 的 torch，或用 --device cpu"
    ),
    "run.tracker={as_is} needs a package that is not installed: {as_is_fix}": (
        "run.tracker={as_is} 需要的包没有安装：{as_is_fix}"
    ),
}

TEXTS = {
    "no text given: name a file, folder or sample with --data-path": (
        "没有给文本：用 --data-path 给出文件、文件夹或示例"
    ),
    "data.data_path is missing: give --data-path FILE, or --suite NAME": (
        "缺少 data.data_path：请给 --data-path FILE，或 --suite NAME"
    ),
    "data.data_path is missing: give --data-path FILE (JSONL, Parquet, text, a folder), or "
    "sample:shakespeare to try": (
        "缺少 data.data_path：请给 --data-path FILE（JSONL、Parquet、文本、文件夹），"
        "或用 sample:shakespeare 试试"
    ),
    "{as_is}: no such file or folder": "{as_is}：没有这个文件或文件夹",
    "{as_is}: no such file or folder; did you mean {as_is_near}?": (
        "{as_is}：没有这个文件或文件夹；是不是 {as_is_near}？"
    ),
    "{as_is}: unknown file type; supported: {as_is_known}; if it is plain text: --text-suffixes "
    "{as_is_suffix}": (
        "{as_is}：不认识这种文件；支持：{as_is_known}；如果是纯文本：--text-suffixes {as_is_suffix}"
    ),
    "{as_is}: no text in this folder; supported: {as_is_known}": (
        "{as_is}：文件夹里没有文本；支持：{as_is_known}"
    ),
    "{as_is}: matches no readable file; supported: {as_is_known}": (
        "{as_is}：没有与之匹配、可读的文件；支持：{as_is_known}"
    ),
    "no text in {as_is}: check the path and --text-field": (
        "{as_is} 里没有文本：请检查路径和 --text-field"
    ),
    "no text in {as_is}: check the path and --text-field ({as_is_first})": (
        "{as_is} 里没有文本：请检查路径和 --text-field（{as_is_first}）"
    ),
    "no text to train a tokenizer on: check --data-path and --text-field": (
        "没有文本可用来训练分词器：请检查 --data-path 和 --text-field"
    ),
    "no text to train a tokenizer on: check --data-path and --text-field ({as_is_first})": (
        "没有文本可用来训练分词器：请检查 --data-path 和 --text-field（{as_is_first}）"
    ),
    "too much text would be left out: {what}; the first is {first}. Mend that, or go on without "
    "it: --allow-loss": (
        "会略去太多文本：{what}；第一处是 {first}。请改正，或略去它们继续：--allow-loss"
    ),
    "{as_is}: no field {as_is_field}; fields seen: {as_is_seen}; choose one with --text-field": (
        "{as_is}：没有字段 {as_is_field}；有字段：{as_is_seen}；用 --text-field 选一个"
    ),
    "{as_is}: no field {as_is_field}; fields seen: {as_is_seen}; choose one with --text-field "
    "{as_is_one}": (
        "{as_is}：没有字段 {as_is_field}；有字段：{as_is_seen}；用 --text-field {as_is_one} 选它"
    ),
    "{as_is}: is not UTF-8 but probably {as_is_seen}: read it with --encoding {as_is_name}": (
        "{as_is}：不是 UTF-8，很可能是 {as_is_seen}：用 --encoding {as_is_name} 来读"
    ),
    "{as_is}: is not UTF-8, and no usual encoding fits: give its own with --encoding": (
        "{as_is}：不是 UTF-8，常见的编码也都不合：用 --encoding 给出它的编码"
    ),
    "{as_is}: to read it: {as_is_fix}": "{as_is}：要读它：{as_is_fix}",
    "{as_is}: no tokenizer.json in it: give a folder with one; or train one with `jielong "
    "tokenizer`": (
        "{as_is}：里面没有 tokenizer.json：请给有它的文件夹，或用 `jielong tokenizer` 训练一个"
    ),
    "{as_is}: no such file; give a Hugging Face tokenizer folder, or train one with `jielong "
    "tokenizer`": (
        "{as_is}：没有这个文件；请给 Hugging Face 的分词器文件夹，或用 `jielong tokenizer` 训练一个"
    ),
}

RUNS = {
    "{as_is} is in use by process {n} on {as_is_host}: wait for it, or choose another folder": (
        "{as_is} 正被 {as_is_host} 上的进程 {n} 使用：请等它结束，或换一个文件夹"
    ),
    "{as_is} is in use by another process: wait for it, or choose another folder": (
        "{as_is} 正被另一个进程使用：请等它结束，或换一个文件夹"
    ),
    "{as_is} cannot be written: {why}": "{as_is} 不能写入：{why}",
    "{as_is} already holds a run with other settings:\n{as_is_changes}\nuse another --out-dir, the "
    "run's settings, or --override to continue with the new settings": (
        "{as_is} 里已有一次设置不同的训练：\n{as_is_changes}\n请换一个 --out-dir，用原来的设置，"
        "或加 --override 以新的设置继续"
    ),
    "{as_is}: exists but is not a dataset: choose another --out-dir": (
        "{as_is}：已经存在，但不是数据集：请换一个 --out-dir"
    ),
    "{as_is}: no such folder; did you mean {as_is_near}?": (
        "{as_is}：没有这个文件夹；是不是 {as_is_near}？"
    ),
    "{as_is}: no such folder: give the folder of a run, a checkpoint or a model": (
        "{as_is}：没有这个文件夹：请给训练、检查点或模型的文件夹"
    ),
    "{as_is}: is a file: give the folder of a run, a checkpoint or a model; of a MiniMind .pth, "
    "`jielong import` makes one": (
        "{as_is}：是文件：请给训练、检查点或模型的文件夹；MiniMind 的 .pth 可用 `jielong import` "
        "转换"
    ),
    "{as_is}: contains no model (no config.json and no checkpoints/step-* in it)": (
        "{as_is}：里面没有模型（没有 config.json，也没有 checkpoints/step-*）"
    ),
    "{as_is}: contains no model ({why})": "{as_is}：里面没有模型（{why}）",
    "{as_is}: no checkpoint of step {n}; there are: {as_is_steps}": (
        "{as_is}：没有第 {n} 步的检查点；有：{as_is_steps}"
    ),
    "{as_is}: use best, last or a step": "{as_is}：请用 best、last 或步数",
    "{as_is}: damaged (its SHA-256 differs from the manifest)": (
        "{as_is}：已损坏（SHA-256 与清单不符）"
    ),
}

OF_FILES = {f"{{as_is}}: {english}": f"{{as_is}}：{chinese}" for english, chinese in WORDS.items()}
ERRORS: dict[str, str] = WORDS | OF_FILES | COMMAND | SETTINGS | TEXTS | RUNS
