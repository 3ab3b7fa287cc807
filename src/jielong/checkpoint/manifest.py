"""The manifest of a checkpoint: the SHA-256 of each file, compared by one process or by several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jielong.errors import CheckpointError
from jielong.runtime.distributed import World
from jielong.runtime.files import sha256, sync

MANIFEST = "manifest.json"


def listed_files(checkpoint: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by the manifest, which has to name what is there.

    Raises:
        CheckpointError: a file is missing, unexpected or a link, or there is no manifest.
    """
    try:
        sums = json.loads((checkpoint / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{checkpoint}: {MANIFEST} is missing or damaged") from None
    if not isinstance(sums, dict) or (checkpoint / MANIFEST).is_symlink():
        raise CheckpointError(f"{checkpoint}: {MANIFEST} is damaged")
    present = {path.name for path in checkpoint.iterdir()} - {MANIFEST}
    if present != set(sums):
        odd = min(present ^ set(sums), default="?")
        raise CheckpointError(f"{checkpoint}: {odd} is missing or does not belong here")
    for name in sums:
        path = checkpoint / name
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{path}: not a plain file")
    return sums


def verify_file(path: Path, expected: str) -> None:
    """Compare a file with its SHA-256.

    Raises:
        CheckpointError: it differs.
    """
    if sha256(path) != expected:
        raise CheckpointError(f"{path}: damaged (its SHA-256 differs from the manifest)")


def problem_found_by(world: World, checkpoint: Path) -> str | None:
    """Compare every file with the manifest, each rank some of them; every rank calls it.

    Returns:
        What is wrong, the same on all ranks; None if nothing is.

    Raises:
        CheckpointError: this rank does not see the checkpoint, which is no fault of the checkpoint.
    """
    sums, problem = dict[str, str](), None
    if world.is_main:
        try:
            sums = listed_files(checkpoint)
        except CheckpointError as error:
            problem = str(error)
    sums, problem = world.all_gather((sums, problem))[0]
    if problem is not None:
        return problem
    with world.barrier_after():  # it may take longer than a rank is waited for elsewhere
        problem = _problem(checkpoint, sums, world.rank, world.world_size)
    return next((found for found in world.all_gather(problem) if found), None)


def _problem(checkpoint: Path, sums: Mapping[str, str], rank: int, ranks: int) -> str | None:
    """Compare a rank's share of the files."""
    paths = [checkpoint / name for name in sums]
    if unseen := [path for path in paths if not path.is_file()]:
        raise CheckpointError(
            f"{unseen[0]}: rank 0 sees it, and rank {rank} does not: all must have --out-dir on "
            "the same disk, under the same path"
        )
    paths.sort(key=lambda path: (path.stat().st_size, path.name))  # so that the shares are alike
    try:
        for path in paths[rank::ranks]:
            verify_file(path, sums[path.name])
    except CheckpointError as error:
        return str(error)
    return None


def write_manifest(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Sync every file to disk and write their SHA-256; those of `known`, by name, are so already.

    Nothing may be added to the folder afterwards.
    """
    sums = dict(known or {})
    for path in sorted(folder.iterdir()):
        if path.name not in sums:
            sync(path)
            sums[path.name] = sha256(path)
    (folder / MANIFEST).write_text(json.dumps({"sha256": dict(sorted(sums.items()))}, indent=1))
    sync(folder / MANIFEST)
    sync(folder)
