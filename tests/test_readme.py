"""What the pages tell a newcomer to type works as it stands there, with a smaller preset."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import tomli_w
import torch

from jielong.cli.main import main, parse
from jielong.config.aliases import BATCH_ALIASES
from jielong.config.load import load_config, preset_names
from jielong.config.settings import FIELDS
from jielong.model.transformer import Transformer
from jielong.training import minutes, speed
from tiny import TEXTS, TINY_RUN

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.zh-CN.md"]
GUIDES = ["docs/use-your-model.md", "docs/use-your-model.zh-CN.md"]
SERVING = ["docs/serve.md", "docs/serve.zh-CN.md"]
PLAYING = ["docs/ui.md", "docs/ui.zh-CN.md"]
CLEANING = ["docs/cleaning.md", "docs/cleaning.zh-CN.md"]
PAGES = [*READMES, "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
SMALLER = {"head_dim": 16, "intermediate_size": 48, "steps": 2, "vocab_size": 320}


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words after `jielong` of each command, as a shell would split them."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"^\S*?@?(?:\S+/)?jielong (.+)$", joined, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def makefile_command(target: str) -> list[str]:
    text = read("Makefile").replace("\\\n", " ")
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, flags=re.MULTILINE)
    assert recipe, target
    (words,) = commands(re.sub(r"^\t", "", recipe[1], flags=re.MULTILINE))
    return words


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a newcomer's texts in it, where the preset `small` takes a second."""
    presets = tmp_path / "presets"
    presets.mkdir()
    tables: dict[str, dict[str, object]] = {}
    for name, value in (TINY_RUN | SMALLER).items():
        tables.setdefault((FIELDS | BATCH_ALIASES)[name].section, {})[name] = value
    (presets / "small.toml").write_text(tomli_w.dumps(tables))
    monkeypatch.setattr("jielong.config.load.SOURCE_PRESETS", presets)
    monkeypatch.setattr(minutes, "MOST_EPOCHS", 2)  # --minutes would read so small a text 30 times
    monkeypatch.setattr(speed, "LEAST_S", 0.01)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    Path("corpus.jsonl").write_text(
        "".join(f'{{"text": "{text}", "n": {n}}}\n' for n, text in enumerate(TEXTS))
    )
    Path("other.txt").write_text("Another text.")
    return home


@pytest.mark.parametrize(("english", "chinese"), [READMES, GUIDES, SERVING, PLAYING, CLEANING])
def test_both_languages_show_the_same_code(english: str, chinese: str) -> None:
    for language in ("bash", "sh", "python"):  # so those of one are run
        assert blocks(english, language) == blocks(chinese, language)


def test_commands_of_the_readme_run_in_their_order(
    newcomer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = READMES[0]
    lines = [words for block in blocks(page, "bash") for words in commands(block)]
    verbs = [words[0] for words in lines]
    assert verbs == ["pretrain", "generate", "evaluate", "tokenizer", "prepare", "pretrain"]
    for words in lines:
        assert main(words) == 0, capsys.readouterr().err
    (example,) = blocks(page, "python")
    capsys.readouterr()
    exec(compile(example, page, "exec"), {})
    assert "this run is complete" in capsys.readouterr().out  # as Python goes on with the same run


@pytest.mark.parametrize(
    ("target", "sample"), [("demo", "sample:shakespeare"), ("demo-zh", "sample:poems")]
)
def test_the_demo_prints_what_it_learnt_and_what_to_try_next(
    target: str, sample: str, newcomer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = makefile_command(target)
    prompts = parse(words).__dict__["field sample_prompts"]
    words[words.index(sample)] = "corpus.jsonl"
    place = words.index("--minutes" if "--minutes" in words else "--tokens")
    words[place : place + 2] = ["--preset", "small"]  # which counts steps here
    assert main([*words, "--sample-tokens", "4"]) == 0
    said = capsys.readouterr().out
    assert len(prompts) == 3 and all(f"── {prompt}" in said for prompt in prompts)
    assert re.search(r"held-out +loss [\d.]+ · perplexity [\d.]+ · [\d. ±]+ bits per byte", said)
    offers = said.split("\nnext steps\n")[1].splitlines()
    offered = [commands(re.sub(r" {2,}.*", "", line.strip()))[0] for line in offers]
    assert [command[:2] for command in offered] == [
        ["generate", f"runs/{target}"],
        ["generate", f"runs/{target}"],
        ["evaluate", f"runs/{target}"],
    ]


@pytest.mark.parametrize("page", READMES)
def test_presets_have_the_sizes_that_the_readme_gives(page: str) -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", read(page), flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == preset_names()
    for name, sizes in rows:
        config = load_config(name).model
        with torch.device("meta"):
            model = Transformer(config)
        size, *active = re.findall(r"([\d.]+)M", sizes)
        assert rounds_to(model.num_parameters(), size), (name, model.num_parameters())
        if config.use_moe:
            assert rounds_to(model.num_active_parameters(), active[0]), name


def rounds_to(number: int, shown: str) -> bool:
    """Whether `number` is `shown` millions, to the digits shown."""
    return f"{number / 1e6:.{len(shown.partition('.')[2])}f}" == shown


def test_commands_that_take_a_model_elsewhere_run(
    newcomer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = GUIDES[0]
    run = ["pretrain", "--preset", "small", "--data-path", "corpus.jsonl", "--out-dir", "runs/demo"]
    assert main(run) == 0
    inline = re.findall(r"`(jielong (?:export|generate|pretrain|evaluate) [^`]*)`", read(page))
    for line in [*map(str.strip, inline), *blocks(page, "sh")]:
        for words in commands(line):
            parse(words[:-1] if words[-1] == "…" and not words[-2].startswith("--") else words)
            if words[0] != "export" or words[1] != "runs/demo" or "--push-to-hub" in words:
                continue
            if "gguf" in words:
                pytest.importorskip("gguf")
            out = Path(words[words.index("--out") + 1])
            shutil.rmtree(out, ignore_errors=True)
            assert main(words) == 0, capsys.readouterr().err
            assert any(out.iterdir())
    pytest.importorskip("transformers")
    example = blocks(page, "python")[0]
    folder = next(Path("runs/demo/checkpoints").glob("step-*"))
    example = re.sub(r"runs/demo/checkpoints/step-\d+", str(folder), example)
    exec(compile(example.replace("max_new_tokens=100", "max_new_tokens=4"), page, "exec"), {})


def test_the_text_of_a_newcomer_is_cleaned_as_the_page_says(
    newcomer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rensa", "py3langid"):
        pytest.importorskip(name)
    shutil.copy("corpus.jsonl", "test.jsonl")
    lines = [words for block in blocks(CLEANING[0], "sh") for words in commands(block)]
    assert [words[0] for words in lines] == ["clean", "clean", "clean", "pretrain"]
    assert main(lines[0]) == 0, capsys.readouterr().err
    assert main(lines[1]) == 2  # such texts are no pages of the web
    assert "web dropped" in capsys.readouterr().err
    assert main(lines[2]) == 2  # each of them is a test question
    assert "contamination dropped" in capsys.readouterr().err
    assert main([*lines[3], "--preset", "small"]) == 0, capsys.readouterr().err
    (example,) = blocks(CLEANING[0], "python")
    shutil.rmtree("cleaned")
    exec(compile(example, CLEANING[0], "exec"), {})
    kept, dropped = map(int, capsys.readouterr().out.splitlines()[-1].split())
    assert dropped and kept + dropped == len(TEXTS)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)\)", read(page)):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_of_the_pages_are_there(page: str) -> None:
    targets = set(re.findall(r"^([a-z%-]+):", read("Makefile"), flags=re.MULTILINE))
    for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", read(page), flags=re.MULTILINE):
        assert target in targets or target.startswith("bench-"), target
