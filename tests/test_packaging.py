"""What is imported when, and what a wheel brings."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from jielong.tokenization.batch_encoding import LEAST_CHARS
from tiny import SOURCE, TINY_RUN, environment, flags, in_this_process

ROOT = SOURCE.parent
# the preset `tiny`, made smaller, for a few steps
FEW_STEPS = TINY_RUN | {"steps": 3, "eval_interval": 2, "vocab_size": 320}
# what only some commands need; the first three come with every installation
USED_BY_SOME = [
    *("charset_normalizer", "pyarrow", "pypi_simple", "zstandard"),
    *("mammoth", "obstore", "pypdfium2", "resiliparse"),
    *("awkward", "datasets", "gguf", "gigatoken", "huggingface_hub", "matplotlib", "requests"),
    *("jinja2", "mlflow", "starlette", "swanlab", "tensorboard", "trackio", "transformers"),
    *("py3langid", "ray", "rensa", "uvicorn", "wandb"),
]
HEAVY = ["numpy", "orjson", "rich", "safetensors", "tokenizers", "torch", *USED_BY_SOME]
# Python's own finder, but blind to the modules in the first argument, as if not installed
HIDING = """
import sys
from importlib.machinery import PathFinder

hidden = sys.argv.pop(1).split(",")

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in hidden else PathFinder.find_spec(name, path, target)

sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""
JIELONG = HIDING + "import jielong.cli.main as cli\nsys.exit(cli.main())"


def python(code: str, *words: str, cwd: Path = ROOT) -> str:
    """What Python prints for `code`, run as a process of its own with `words` as arguments."""
    return output([sys.executable, "-c", code, *words], cwd, environment())


def output(command: Sequence[str | Path], cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dataset(
    corpus_file: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "dataset"
    words = ["--data-path", str(corpus_file), "--tokenizer", str(tokenizer_dir)]
    status, said = in_this_process(["prepare", *words, "--out-dir", str(folder)])
    assert status == 0, said
    return folder


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import jielong.cli.main as cli, sys\n"
        "try: cli.main()\n"
        "except SystemExit: print(*sys.modules)"
    )
    imported = python(code, *words).splitlines()[-1].split()
    assert "argparse" in imported
    assert not set(HEAVY) & set(imported)


def test_import_jielong_imports_no_torch_and_its_functions_nothing_that_only_some_need() -> None:
    code = (
        "import jielong, sys\n"
        "print(*sys.modules)\n"
        "jielong.pretrain, jielong.generate\n"
        "print(*sys.modules)"
    )
    at_once, for_a_function = map(str.split, python(code).splitlines())
    assert not set(HEAVY) & set(at_once)
    assert "torch" in for_a_function
    assert not set(USED_BY_SOME) & set(for_a_function)


def test_a_prepared_dataset_is_trained_on_and_continued_without_what_only_some_need(
    dataset: Path, tmp_path: Path
) -> None:
    hidden = ",".join(USED_BY_SOME)
    settings = FEW_STEPS | {"preset": "tiny", "data_path": str(dataset), "out_dir": str(tmp_path)}
    said = python(JIELONG, hidden, "pretrain", *flags(settings))
    assert "held-out    loss" in said
    words = ["--prompt", "Tale", "--max-new-tokens", "8", "--seed", "1"]
    said = python(JIELONG, hidden, "generate", str(tmp_path), *words)
    assert said.startswith("Tale")
    assert len(said) > len("Tale\n")


def test_without_the_extra_fast_text_gives_the_same_dataset_and_no_complaint(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    text = "".join(f"{n} geese, {n * n} ducks.\n" for n in range(6000))
    assert len(text) > 2 * LEAST_CHARS
    (tmp_path / "ducks.txt").write_text(text)
    words = ["--data-path", "../ducks.txt", "--tokenizer", str(tokenizer_dir), "--out-dir", "out"]
    said, datasets = [], []
    for hidden in ("", "awkward", "awkward,gigatoken"):
        folder = tmp_path / f"without {hidden}"
        folder.mkdir()
        said.append(python(JIELONG, hidden, "prepare", *words, cwd=folder))
        datasets.append({path.name: path.read_bytes() for path in (folder / "out").glob("*.bin")})
    assert said[0] == said[1] == said[2]
    assert datasets[0] and datasets[0] == datasets[1] == datasets[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    (path,) = folder.glob("jielong-*.whl")
    return path


def test_a_wheel_holds_every_module_and_every_preset_and_the_page(wheel: Path) -> None:
    package = ROOT / "src" / "jielong"
    modules = {f"jielong/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    pages = {f"jielong/ui/static/{path.name}" for path in (package / "ui" / "static").iterdir()}
    presets = {f"jielong/configs/{path.name}" for path in (ROOT / "configs").glob("*.toml")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert presets and pages
    assert held == modules | presets | pages | {"jielong/py.typed"}


def test_a_wheel_alone_finds_its_presets_and_trains(
    wheel: Path, dataset: Path, tmp_path: Path
) -> None:
    target = tmp_path / "site"
    install = ["-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    settings = FEW_STEPS | {"preset": "tiny", "data_path": str(dataset), "out_dir": "run"}
    command = [sys.executable, "-m", "jielong", "pretrain", *flags(settings)]
    said = output(command, tmp_path, environment(PYTHONPATH=str(target)))
    assert "held-out    loss" in said
