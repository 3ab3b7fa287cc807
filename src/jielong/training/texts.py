"""The texts that a run trains on, as its settings name them: one, an older one too, or several."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jielong.config.mixture import MixtureSource, ReplaySetting
from jielong.config.settings import Config
from jielong.data.mixture import Mixture, Part
from jielong.data.prepare.provenance import Sources, warn_of_same_text
from jielong.data.remote_dataset import find_remote_dataset
from jielong.data.shards import Dataset
from jielong.data.sources.remote import is_remote
from jielong.errors import ConfigError, DataError
from jielong.runtime.run_folder import RunFolder

REPLAY = "replay"  # the name of the older text


@dataclass(frozen=True)
class Text:
    """One of the texts of a run.

    Attributes:
        name: a source's of a mixture, `replay` for an older text, empty for the text of data_path.
        config: the run's, with this text alone.
        folder: where the run prepares it.
        setting: what names it in the settings, for messages.
        weight, epochs: what a mixture says of it.
    """

    name: str
    config: Config
    folder: Path
    setting: str
    weight: float | None = None
    epochs: float | None = None

    @property
    def prepared(self) -> Path | None:
        """The folder of a dataset that `jielong prepare` made, if that is what the text is."""
        return prepared_folder(self.config)

    @property
    def dataset_folder(self) -> Path:
        """Where its tokens are: a prepared dataset that was given, or the run's own."""
        return self.prepared or self.folder

    def weight_of(self, size: int) -> float:
        """Return its weight beside the other sources of a mixture; `size` in any one unit."""
        return self.weight if self.weight is not None else (self.epochs or 0) * size

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Within, an error of this text's data says which setting names it."""
        try:
            yield
        except DataError as error:
            if not self.name:
                raise
            raise DataError(f"{self.setting}: {error}") from None


def texts_of(config: Config, run: RunFolder) -> list[Text]:
    """Return the texts that the settings name; an older one comes last."""

    def alone(*path: str) -> Config:
        beside = {"validation_path": (), "replay": None, "mixture": ()}
        data = dataclasses.replace(config.data, data_path=path, **beside)  # type: ignore[arg-type]
        return dataclasses.replace(config, data=data)

    data = config.data
    if data.mixture:
        return [
            Text(
                source.name,
                alone(source.path),
                run.data / source.name,
                f"data.mixture={text!r}",
                source.weight,
                source.epochs,
            )
            for text in data.mixture
            if (source := MixtureSource.parse(text))
        ]
    found = [Text("", config, run.data, "data.data_path")]
    if data.replay is not None:
        path = ReplaySetting.parse(data.replay).path
        found.append(Text(REPLAY, alone(path), run.replay, f"data.replay={data.replay!r}"))
    return found


def new_texts(config: Config, run: RunFolder) -> list[Text]:
    """Return the texts without an older one, which a model knows already."""
    return [text for text in texts_of(config, run) if text.name != REPLAY]


def prepared_folder(config: Config) -> Path | None:
    """The folder of a dataset that `jielong prepare` made, if that is what `data_path` names.

    Of a remote one it is the cache's.

    Raises:
        DataError: a remote one is damaged, or its server cannot be reached.
    """
    paths = config.data.data_path
    if len(paths) != 1:
        return None
    if is_remote(paths[0]):
        return find_remote_dataset(paths[0])
    return Path(paths[0]) if (Path(paths[0]) / "dataset.json").is_file() else None


def _find_text(text: Text, others: Callable[[], list[tuple[str, list[Sources]]]]) -> Sources:
    """Find the sources of a text beside others; none where it is prepared already.

    Args:
        others: the sources of other texts, with what names them.

    Raises:
        DataError: the text is missing, of an unknown kind, or has a file of another one.
    """
    if text.prepared:
        return Sources([], [])
    with text.naming():
        found = Sources.of(text.config.data)
        for setting, several in others():
            files = {s.identity for x in several for s in x.data if s.identity}
            if shared := [s.name for s in found.data if s.identity in files]:
                raise DataError(f"{shared[0]} is a file of {setting} too: leave it out of one")
    return found


def finders(
    config: Config, run: RunFolder, log: Callable[[str], None]
) -> dict[str, Callable[[], Sources]]:
    """Return what finds the sources of each text, once, by the text's name."""
    texts = texts_of(config, run)
    found: dict[str, Callable[[], Sources]] = {}
    for at, text in enumerate(texts):
        if not text.name:
            found[""] = functools.cache(lambda: find_sources(config, log))
            continue

        def others(before: Sequence[Text] = texts[:at]) -> list[tuple[str, list[Sources]]]:
            beside = []
            for other in before:
                if other.prepared is None:
                    its = found[other.name]()
                    beside.append((other.setting.partition("=")[0], [its]))
                    if its.validation:
                        beside.append(("data.validation_path", [Sources(its.validation, [])]))
            return beside

        found[text.name] = functools.cache(functools.partial(_find_text, text, others))
    return found


def find_sources(config: Config, log: Callable[[str], None]) -> Sources:
    """Find the sources that the settings name; warn of text that is trained on and held out.

    Raises:
        ConfigError: there are none.
        DataError: a path does not exist, matches nothing, or is of an unknown kind.
    """
    if not config.data.data_path:
        raise ConfigError(
            "data.data_path is missing: give --data-path FILE (JSONL, Parquet, text, a folder), "
            "or sample:shakespeare to try"
        )
    sources = Sources.of(config.data)
    warn_of_same_text(sources, log)
    return sources


@dataclass(frozen=True)
class OpenText:
    """A text of a run, opened.

    Attributes:
        share: of the run's windows.
    """

    name: str
    dataset: Dataset
    share: float


@dataclass(frozen=True)
class RunTexts:
    """The texts of a run, opened.

    Attributes:
        main: the text of data_path; of a mixture, the source that is read most often, which an
            epoch reads once.
        others: what is mixed in.
        order: the names of all, as the settings have them.
        passes: how often the main text is read while the mixture is read once.
        is_mixture: whether the settings name several texts as equals.
    """

    main: OpenText
    others: tuple[OpenText, ...]
    order: tuple[str, ...]
    passes: float = 1.0
    is_mixture: bool = False

    @property
    def every(self) -> list[OpenText]:
        """All texts, in the order of the settings."""
        return sorted([self.main, *self.others], key=lambda text: self.order.index(text.name))

    @property
    def held_out(self) -> bool:
        """Whether text is held out: of the main one, or of any of a mixture."""
        of = self.every if self.is_mixture else [self.main]
        return any(text.dataset.validation is not None for text in of)

    @property
    def mixture(self) -> Mixture | None:
        """What is mixed into the main text, for its batches."""
        if not self.others:
            return None
        parts = tuple(Part(text.dataset.train, text.share) for text in self.others)
        return Mixture(parts, self.passes)

    @property
    def epoch_tokens(self) -> float:
        """Tokens of a run in which the main text is read once."""
        return len(self.main.dataset.train) / self.main.share

    @property
    def replayed(self) -> OpenText | None:
        """The older text, if the run replays any."""
        return next((text for text in self.others if text.name == REPLAY), None)


def with_shares(texts: list[Text], datasets: list[Dataset], replay_share: float) -> RunTexts:
    """Return the texts of a run with the shares that the settings say."""
    order = tuple(text.name for text in texts)
    if not texts[0].name:
        main = OpenText("", datasets[0], 1 - replay_share)
        older = [OpenText(REPLAY, dataset, replay_share) for dataset in datasets[1:]]
        return RunTexts(main, tuple(older), order)
    tokens = [len(dataset.train) for dataset in datasets]
    weights = [float(text.weight_of(n)) for text, n in zip(texts, tokens, strict=True)]
    total = sum(weights)
    opened = [
        OpenText(text.name, dataset, weight / total)
        for text, dataset, weight in zip(texts, datasets, weights, strict=True)
    ]
    # the first of those that are read most often
    often = [
        text.epochs if text.epochs is not None else weight / count
        for text, weight, count in zip(texts, weights, tokens, strict=True)
    ]
    at = often.index(max(often))
    passes = texts[at].epochs or 1.0
    others = tuple(opened[:at] + opened[at + 1 :])
    return RunTexts(opened[at], others, order, passes, is_mixture=True)
