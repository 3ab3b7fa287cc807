"""Check what a release would hold: `make check-dist`. Not a test: it installs all but torch anew.

The wheel is installed alone into a new environment, and trains, continues and inspects a text
there, in an empty folder that knows nothing of the source. torch is linked from the environment
that runs this: for Linux its index has the one with CUDA, 2.7 GB. Then the first cell of the
notebook installs the wheel once more, as it would on a machine that has nothing of ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = "".join(f"Tale {n}. The {n * 7 % 13} geese of the mill went home.\n\n" for n in range(400))
TRAIN = (
    "pretrain --data-path corpus.txt --text-unit paragraph --preset tiny --steps 4 --out-dir run"
)
COMMANDS = [
    "--version",
    f"{TRAIN} --vocab-size 320 --hidden-size 32 --num-hidden-layers 2 --device cpu",
    "generate run --prompt Tale --max-new-tokens 8 --seed 1",
    "evaluate run --data-path corpus.txt --text-unit paragraph",
    "inspect predict run Tale",
    "report run",
    "export run --format hf --out exported",
    "plan --preset qwen3-64m --data-path corpus.txt --gpu h100",
]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a program; end with what it says if it fails."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def check_names(wheel: Path, sdist: Path) -> None:
    """Check that both hold what they must, and nothing that is not meant to be there."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {p.relative_to(ROOT / "src").as_posix() for p in ROOT.glob("src/jielong/**/*.py")}
    page = {p.relative_to(ROOT / "src").as_posix() for p in ROOT.glob("src/jielong/ui/static/*")}
    presets = {f"jielong/configs/{p.name}" for p in ROOT.glob("configs/*.toml")}
    missing = (modules | page | presets | {"jielong/py.typed"}) - names
    about = {name for name in names if ".dist-info/" in name}
    more = names - modules - page - presets - about - {"jielong/py.typed"}
    if missing or more:
        raise SystemExit(f"{wheel.name}: missing {sorted(missing)}, unexpected {sorted(more)}")
    for name in ("LICENSE", "NOTICE"):
        if not any(path.endswith(f"/licenses/{name}") for path in about):
            raise SystemExit(f"{wheel.name}: no {name}")
    with tarfile.open(sdist) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    top = {name.partition("/")[0] for name in held}
    known = {"src", "configs", "LICENSE", "NOTICE", "CITATION.cff", "CHANGELOG.md", "README.md"}
    known |= {"README.zh-CN.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    if top - known or not {f"src/{name}" for name in modules} <= held:
        raise SystemExit(f"{sdist.name}: unexpected {sorted(top - known)}, or a module is missing")


def link_torch(environment: Path) -> None:
    """Link torch into an environment, and what of CUDA it needs, from the one that runs this."""
    (packages,) = environment.glob("lib/python*/site-packages")
    wanted, seen = ["torch"], set[str]()
    while wanted:
        name = wanted.pop()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system
            continue
        seen.add(name)
        needed = {re.split(r"[^\w.-]", line)[0] for line in found.requires or []}
        wanted += [n for n in needed - seen if re.match(r"nvidia|cuda|triton", n)]
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            link = packages / top
            if not link.exists():  # packages of CUDA share a folder
                link.symlink_to(Path(str(found.locate_file(top))))


def run_first_cell(python: Path, wheel: Path, folder: Path) -> None:
    """Run the notebook's installation where jielong is not installed and its wheel lies there."""
    notebook = json.loads((ROOT / "docs/notebook/pretrain.ipynb").read_text(encoding="utf-8"))
    code = next("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    folder.mkdir()
    (folder / wheel.name).symlink_to(wheel.resolve())
    run(python, "-m", "pip", "uninstall", "--yes", "--quiet", "jielong")
    after = "import jielong, matplotlib\nprint(jielong.__version__)"
    constraints = str(ROOT / "constraints.txt")
    run(python, "-c", f"{code}\n{after}", cwd=folder, PIP_CONSTRAINT=constraints)


def main() -> None:
    """Check the archives of a folder: `check.py dist`."""
    folder = Path(sys.argv[1])
    (wheel,), (sdist,) = folder.glob("jielong-*.whl"), folder.glob("jielong-*.tar.gz")
    check_names(wheel, sdist)
    print(f"{wheel.name} ({wheel.stat().st_size:,} bytes), {sdist.name}: the right files")
    with tempfile.TemporaryDirectory(prefix="jielong-dist-") as temporary:
        work = Path(temporary)
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(sys.executable, "-m", "venv", work / "tools")
        run(work / "tools/bin/python", *pip, "twine", "cffconvert")
        run(work / "tools/bin/twine", "check", "--strict", wheel, sdist)
        run(work / "tools/bin/cffconvert", "--validate", "-i", ROOT / "CITATION.cff")
        print("twine and cffconvert find nothing wrong")
        run(sys.executable, "-m", "venv", work / "alone")
        link_torch(work / "alone")
        run(work / "alone/bin/python", *pip, "-c", ROOT / "constraints.txt", wheel)
        run(work / "alone/bin/python", "-m", "pip", "check")
        (work / "empty").mkdir()
        (work / "empty/corpus.txt").write_text(TEXT, encoding="utf-8")
        for command in COMMANDS:
            run(work / "alone/bin/jielong", *command.split(), cwd=work / "empty")
            print(f"  jielong {command}")
        run_first_cell(work / "alone/bin/python", wheel, work / "notebook")
        print("  the first cell of the notebook")
    print("the wheel alone trains, continues, evaluates, inspects, reports, exports and plans")


if __name__ == "__main__":
    main()
