"""The filters of one cleaning, one after another, from reading to the files of text."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jielong.cleaning.accounts import Accounts
from jielong.cleaning.contamination import Contamination
from jielong.cleaning.duplicates import drop_exact, drop_near
from jielong.cleaning.judging import Judged, Work, judged, judged_on_ray
from jielong.cleaning.language import Language
from jielong.cleaning.length import Length, lengths_judged
from jielong.cleaning.lines import Places, RepeatedLines, places_of_lines, repeated_lines
from jielong.cleaning.marks import Marker, MarkFiles
from jielong.cleaning.outcome import Change, Drop, TextFilter
from jielong.cleaning.personal import Mask
from jielong.cleaning.progress import Progress
from jielong.cleaning.quality import quality
from jielong.cleaning.repetition import repetition
from jielong.cleaning.report import FORMAT
from jielong.cleaning.staging import Place, Stage, Texts, batches_of
from jielong.cleaning.web import web
from jielong.cleaning.writing import TextWriter
from jielong.config.cleaning import CleaningConfig
from jielong.config.settings import DataConfig
from jielong.data.prepare.files_read import describe_files
from jielong.data.prepare.left_out import LeftOut
from jielong.data.prepare.provenance import Sources
from jielong.data.sources.documents import DocumentTexts, Source, read_documents, reading_of
from jielong.data.sources.listing import DROPPED
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError
from jielong.runtime.tasks import Here, Tasks
from jielong.tokenization.chat import Chat
from jielong.tokenization.tokenizer import Tokenizer

SCRATCH = "scratch"  # the folder of what is needed only while it works


class Cleaning:
    """One cleaning, from reading to the files of text."""

    def __init__(
        self,
        data: DataConfig,
        cleaning: CleaningConfig,
        folder: Path,
        log: Callable[[str], None],
        tokenizer: Tokenizer | None,
        tasks: Tasks,
    ) -> None:
        self._data, self._cleaning, self._folder = data, cleaning, folder
        self._tokenizer, self._tasks = tokenizer, tasks
        self._dropped = folder / DROPPED
        self._accounts = Accounts(self._dropped, cleaning.active)
        self._progress = Progress(log)
        self._notes: list[str] = []
        chat = None if tokenizer is None else Chat(tokenizer)
        texts = RowText.of_settings(data, chat)
        self._reading = texts, data.encoding, Splitting.of(data)
        similarity = cleaning.near_similarity if "near" in cleaning.active else None
        self._marker = Marker("exact" in cleaning.active, similarity)

    def run(self, sources: Sources, against: list[Source]) -> dict[str, Any]:
        """Clean the texts of the sources; return the record of what was done."""
        filters = self._text_filters(against)
        scratch = self._folder / SCRATCH
        scratch.mkdir()
        self._dropped.mkdir()
        left_out = LeftOut(self._dropped, self._data.strict, self._data.allow_loss)
        stage, read = self._read(sources, left_out, filters, scratch)
        if "lines" in self._cleaning.active:
            stage = self._without_lines(stage, scratch)
        writer = self._write(stage)
        self._accounts.close()
        left_out.close()
        stage.close()
        shutil.rmtree(scratch)
        if not any(self._dropped.iterdir()):
            self._dropped.rmdir()
        by_filter = self._accounts.by_filter
        if not writer.texts:
            raise DataError(self._nothing_left(read[0], left_out))
        return {
            "format": FORMAT,
            "read": {"texts": read[0], "bytes": read[1]},
            "kept": {"texts": writer.texts, "bytes": writer.bytes},
            "filters": {name: account.record() for name, account in by_filter.items()},
            "left_out": left_out.losses.record(),
            "files": writer.files,
            "about_files": describe_files(sources.data, sources.not_read),
            "notes": self._notes,
        }

    def _text_filters(self, against: list[Source]) -> dict[str, TextFilter]:
        """Make the filters that look at one text alone."""
        active, cleaning = self._cleaning.active, self._cleaning
        filters: dict[str, TextFilter] = {}
        if "personal" in active:
            filters["personal"] = Mask(cleaning.personal)
        simple: dict[str, TextFilter] = {"quality": quality, "repetition": repetition, "web": web}
        filters |= {name: simple[name] for name in simple if name in active}
        if "language" in active:
            filters["language"] = Language(cleaning.languages)
        if "contamination" in active:
            texts = DocumentTexts(against, *self._reading)
            with texts.checked(self._data.allow_loss):
                found = Contamination(texts, cleaning.overlap)
            if found.too_short:
                self._notes.append(
                    f"{found.too_short:,} of {found.texts:,} evaluation texts have fewer than 5 "
                    "words: they were not looked for"
                )
            self._notes += texts.losses.lines()
            filters["contamination"] = found
        return filters

    def _read(
        self, sources: Sources, left_out: LeftOut, filters: dict[str, TextFilter], scratch: Path
    ) -> tuple[Stage, tuple[int, int]]:
        """Put on a stage what is left of each text; return it, and texts and bytes read."""
        count = size = 0
        stage, marks = self._staged(scratch / "texts")
        work = Work(filters, self._marker)
        if isinstance(self._tasks, Here):
            found = judged(read_documents(sources.data, *self._reading), work)
        else:
            found = judged_on_ray(sources.data, reading_of(sources.data, *self._reading), work)
        left_out.begin("data")
        for some in found:
            left_out.replay(some.found, some.read_bytes)
            self._enter(some)
            if some.error is not None:
                raise some.error
            stage.add(some.texts, some.places)
            marks.add(some.marks)
            count += some.count
            size += some.size
            self._progress.read(count, size, some.done)
        if not count:
            raise DataError("no usable text" + left_out.summary())
        self._compare(stage, marks, scratch / "compared")
        return stage, (count, size)

    def _enter(self, judged: Judged) -> None:
        """Enter what the filters said."""
        for said in judged.judgements:
            if isinstance(said.outcome, Drop):
                self._accounts.dropped(said.name, said.outcome, said.place, said.text)
            else:
                self._accounts.changed(said.name, said.outcome, said.place)

    def _staged(self, folder: Path) -> tuple[Stage, MarkFiles]:
        """Make a stage, and what its texts are compared by."""
        return Stage(folder), MarkFiles(folder.with_name(f"{folder.name} marks"), self._marker)

    def _compare(self, stage: Stage, marks: MarkFiles, scratch: Path) -> None:
        """End adding to a stage, and drop the texts that are there already."""
        stage.finish()
        marks.finish()
        scratch.mkdir()

        def found(name: str) -> Callable[[int, int, float], None]:
            def enter(number: int, first: int, similarity: float) -> None:
                self._accounts.duplicate(
                    name,
                    stage.place(number),
                    stage.text(number),
                    stage.place(first),
                    None if name == "exact" else similarity,
                )

            return enter

        if self._marker.exact:
            drop_exact(stage, marks, self._tasks, scratch / "exact", found("exact"))
        if self._marker.similarity is not None:
            progress = self._progress.of("near", len(stage))
            how = self._marker.similarity, self._tasks, scratch / "near"
            too_long = drop_near(stage, marks, *how, found("near"), progress)
            if too_long:
                self._notes.append(
                    f"{too_long:,} texts of more than 16 million characters stay: near compares "
                    "shorter ones"
                )

    def _without_lines(self, stage: Stage, scratch: Path) -> Stage:
        """Take out the lines that many texts have: on another stage.

        Copies in different frames are the same without them, so the texts are compared again.
        """
        least, progress = self._cleaning.line_documents, self._progress.of("lines", len(stage))
        repeated = repeated_lines(stage, least, self._tasks, scratch / "lines", progress)
        if not len(repeated):
            return stage
        places = places_of_lines(stage, repeated, self._tasks)
        texts = self._texts_without_lines(zip(stage.texts(), places, strict=True), stage)
        plain, marks = self._staged(scratch / "texts without lines")

        def staged() -> Iterator[Texts]:
            for batch, their_places in batches_of(texts):
                plain.add(batch, their_places)
                yield batch

        for of_batch in self._tasks.each(Marker.marks, self._marker, staged()):
            marks.add(of_batch)
        stage.close()
        self._compare(plain, marks, scratch / "compared again")
        return plain

    def _texts_without_lines(
        self, texts: Iterator[tuple[tuple[int, str], Places]], stage: Stage
    ) -> Iterator[tuple[Place, str]]:
        lines = RepeatedLines()
        for (number, text), places in texts:
            place = stage.place(number)
            left, removed = lines.without(text, places)
            if removed and not left.strip():
                drop = Drop("nothing else", "all of its lines are in many texts")
                self._accounts.dropped("lines", drop, place, text)
                continue
            if removed:
                counts = Counter({"lines": len(removed)})
                self._accounts.changed("lines", Change(left, counts, removed=removed), place)
            yield place, left

    def _write(self, stage: Stage) -> TextWriter:
        """Write the texts that are left."""
        writer = TextWriter(self._folder)
        for number, text in self._of_length(stage):
            writer.write(text, stage.place(number))
            self._progress.written(writer.texts)
        writer.close()
        return writer

    def _of_length(self, stage: Stage) -> Iterator[tuple[int, str]]:
        """Yield the texts that are within the bounds, if there are any bounds."""
        if "length" not in self._cleaning.active:
            yield from stage.texts()
            return
        length = Length(self._cleaning, self._tokenizer)
        batches = self._tasks.each(lengths_judged, length, stage.batches())
        drops = (drop for batch in batches for drop in batch)
        for (number, text), drop in zip(stage.texts(), drops, strict=True):
            if drop is None:
                yield number, text
            else:
                self._accounts.dropped("length", drop, stage.place(number), text)

    def _nothing_left(self, count: int, left_out: LeftOut) -> str:
        """Say which filters dropped everything."""
        most = sorted(self._accounts.by_filter.items(), key=lambda item: -item[1].dropped)
        name, account = most[0]
        example = f"; {account.examples[0]}" if account.examples else ""
        return (
            f"no text of {count:,} is left: {name} dropped {account.dropped:,}{example}: leave it "
            f"out with --without {name}"
        )
