"""Check what a release would hold: `make check-dist`. Not a test: it installs torch anew.

The wheel is installed alone into a new environment, and trains, continues and inspects a text there,
in an empty folder that knows nothing of the source.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
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


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a program; end with what it says if it fails."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
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
        run(work / "alone/bin/python", *pip, "-c", ROOT / "constraints.txt", wheel)
        run(work / "alone/bin/python", "-m", "pip", "check")
        (work / "empty").mkdir()
        (work / "empty/corpus.txt").write_text(TEXT, encoding="utf-8")
        for command in COMMANDS:
            run(work / "alone/bin/jielong", *command.split(), cwd=work / "empty")
            print(f"  jielong {command}")
    print("the wheel alone trains, continues, evaluates, inspects, reports, exports and plans")


if __name__ == "__main__":
    main()
