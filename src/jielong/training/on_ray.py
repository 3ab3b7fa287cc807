"""A run whose processes Ray starts, on a cluster or on this machine, instead of torchrun.

Ray Train starts the processes, joins them, and starts all of them again where one is lost; the run
then goes on from its last checkpoint, as a run does that is started by hand. The checkpoints are
the run's own, in its folder, which all machines must share.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from jielong.config.engine import Engine
from jielong.config.settings import Config
from jielong.errors import AnotherRankError, ConfigError, JielongError, TrainingError, first_line
from jielong.runtime.distributed import TIMEOUT_MINUTES
from jielong.runtime.ray_tasks import connected
from jielong.training.pretrain import pretrain
from jielong.training.result import RunResult

if TYPE_CHECKING:
    from ray.train import ScalingConfig

STORAGE, CONSOLE = "ray", "console.txt"  # in the run's folder
FOLLOW_S = 0.2
RESTARTS = 3  # after lost processes
AGREE_S = 20  # within which all processes of a run meet that have failed together


def pretrain_on_ray(
    config: Config,
    engine: Engine,
    workers: int,
    override: bool = False,
    quiet: bool = False,
    verify: bool = False,
    language: str = "auto",
) -> RunResult:
    """Pretrain a model with processes on Ray; as `pretrain` does otherwise.

    Args:
        workers: processes that train.

    Raises:
        ConfigError: Ray is not installed, cannot be reached, or is too small.
        JielongError: of the run itself.
        TrainingError: processes were lost too often.
    """
    if "-" in config.data.data_path:
        raise ConfigError("data.data_path=-: standard input is not read on Ray: save it as a file")
    with connected(engine.address):
        try:
            from ray.train import FailureConfig, RunConfig
            from ray.train.torch import TorchConfig, TorchTrainer
        except ImportError as error:
            raise ConfigError(
                f"Ray Train is not complete ({first_line(error)}): pip install 'jielong[ray]'"
            ) from None
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        scaling = _scaling(config, workers)
        backend = "nccl" if scaling.use_gpu else "gloo"
        folder = Path(config.run.out_dir).absolute()
        console = folder / STORAGE / CONSOLE
        call = {
            "folder": str(Path.cwd()),
            "console": str(console),
            "arguments": (config, override, quiet, verify, language),
        }
        trainer = TorchTrainer(
            _train,
            train_loop_config=call,
            scaling_config=scaling,
            torch_config=TorchConfig(backend, timeout_s=60 * TIMEOUT_MINUTES),
            run_config=RunConfig(
                name=STORAGE,
                storage_path=str(folder),
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        try:
            with _shown(console, quiet):
                outcome = trainer.fit().return_value
        except Exception as error:  # Ray's own kinds, with the tracebacks of processes
            raise TrainingError(
                f"processes on Ray failed more than {RESTARTS} times; the last error is: "
                f"{_last_line(error)}; the same command goes on from the last checkpoint"
            ) from None
    if isinstance(outcome, str):
        raise JielongError(outcome)
    return outcome


def _last_line(error: Exception) -> str:
    """Return what a process said when it failed, else what Ray says."""
    failures = list(getattr(error, "worker_failures", {}).values()) or [error]
    return (str(failures[0]).strip().splitlines() or [type(error).__name__])[-1]


@contextlib.contextmanager
def _shown(console: Path, quiet: bool) -> Iterator[None]:
    """Print what the first process of the run writes to a file, as it comes."""
    console.parent.mkdir(parents=True, exist_ok=True)
    console.write_bytes(b"")
    ended = threading.Event()

    def follow() -> None:
        with console.open(encoding="utf-8", errors="replace") as file:
            while True:
                last = ended.wait(FOLLOW_S)
                if text := file.read():
                    print(text, end="", flush=True)
                if last:
                    return

    follower = threading.Thread(target=follow, daemon=True)
    if not quiet:
        follower.start()
    try:
        yield
    finally:
        ended.set()
        if not quiet:
            follower.join()


def _scaling(config: Config, workers: int) -> ScalingConfig:
    """Return how Ray shall share out its machines.

    Raises:
        ConfigError: there is not enough of them.
    """
    import ray
    from ray.train import ScalingConfig

    there = ray.cluster_resources()
    cores, cards = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    device = config.training.device
    use_gpu = device == "cuda" or (device == "auto" and cards > 0)
    if workers > (cards if use_gpu else cores):
        there_are = f"{cards} GPUs" if use_gpu else f"{cores} cores"
        raise ConfigError(f"ray_workers={workers}: Ray has only {there_are}: give fewer")
    each = {"CPU": max(1, cores // workers), **({"GPU": 1} if use_gpu else {})}
    return ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=each)


def _train(call: dict[str, Any]) -> RunResult | str:
    """Train, in one of the processes; return the result, or why there is none.

    An error that all processes have is the user's to mend: Ray must not start them again.
    """
    os.chdir(call["folder"])  # in which paths are meant
    place = call["console"] if dist.get_rank() == 0 else os.devnull
    try:
        with (
            Path(place).open("a", encoding="utf-8", buffering=1) as file,
            Path(call["console"]).open("a", encoding="utf-8", buffering=1) as errors,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(errors),  # of all ranks: what the watchdog says of one
        ):
            return pretrain(*call["arguments"])
    except JielongError as error:
        try:
            group = dist.new_group(backend="gloo", timeout=timedelta(seconds=AGREE_S))
            said: list[str] = [""] * dist.get_world_size()
            dist.all_gather_object(said, str(error), group)
        except RuntimeError:  # the others are at work, or gone
            raise error from None
        other = str(AnotherRankError())
        return next((text for text in said if text != other), other)
