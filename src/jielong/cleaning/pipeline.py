"""The filters of one cleaning, one after another, from reading to the files of text."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jielong.cleaning.accounts import Accounts
from jielong.cleaning.contamination import Contamination
from jielong.cleaning.duplicates import drop_exact, drop_near
from jielong.cleaning.language import Language
from jielong.cleaning.length import Length
from jielong.cleaning.lines import RepeatedLines
from jielong.cleaning.outcome import Change, Drop, TextFilter
from jielong.cleaning.personal import Mask
from jielong.cleaning.quality import quality
from jielong.cleaning.repetition import repetition
from jielong.cleaning.report import FORMAT
from jielong.cleaning.staging import Place, Stage
from jielong.cleaning.web import web
from jielong.cleaning.writing import TextWriter
from jielong.config.cleaning import CleaningConfig
from jielong.config.settings import DataConfig
from jielong.data.prepare.files_read import describe_files
from jielong.data.prepare.left_out import LeftOut
from jielong.data.prepare.provenance import Sources
from jielong.data.sources.documents import DocumentTexts, Source, read_documents
from jielong.data.sources.listing import DROPPED
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError
from jielong.tokenization.chat import Chat
from jielong.tokenization.tokenizer import Tokenizer

PROGRESS_S = 5.0
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
    ) -> None:
        self._data, self._cleaning, self._folder = data, cleaning, folder
        self._tokenizer = tokenizer
        self._dropped = folder / DROPPED
        self._accounts = Accounts(self._dropped, cleaning.active)
        self._log, self._logged = log, time.monotonic()
        self._notes: list[str] = []
        chat = None if tokenizer is None else Chat(tokenizer)
        texts = RowText.of_settings(data, chat)
        self._reading = texts, data.encoding, Splitting.of(data)

    def run(self, sources: Sources, against: list[Source]) -> dict[str, Any]:
        """Clean the texts of the sources; return the record of what was done."""
        filters = self._text_filters(against)
        scratch = self._folder / SCRATCH
        scratch.mkdir()
        self._dropped.mkdir()
        stage = Stage(scratch / "texts")
        left_out = LeftOut(self._dropped, self._data.strict, self._data.allow_loss)
        read = self._read(sources, left_out, filters, stage)
        self._compare(stage, scratch)
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
        self,
        sources: Sources,
        left_out: LeftOut,
        filters: dict[str, TextFilter],
        stage: Stage,
    ) -> tuple[int, int]:
        """Put on the stage what each filter leaves of each text; return texts and bytes read."""
        count = size = 0
        items = read_documents(sources.data, *self._reading)
        for document in left_out.documents("data", items):
            count += 1
            size += len(document.text.encode())
            place = Place(document.source, document.line)
            text: str | None = document.text
            for name, judge in filters.items():
                assert text is not None
                text = self._entered(name, judge(text), place, text)
                if text is None:
                    break
            if text is not None:
                stage.add(text, place)
            self._tell(f"read {count:,} texts, {size / 1e6:,.0f} MB")
        stage.finish()
        if not count:
            raise DataError("no usable text" + left_out.summary())
        return count, size

    def _entered(
        self, name: str, outcome: Drop | Change | None, place: Place, text: str
    ) -> str | None:
        """Enter what a filter says of a text; return what is left of it."""
        if isinstance(outcome, Drop):
            self._accounts.dropped(name, outcome, place, text)
            return None
        if isinstance(outcome, Change):
            self._accounts.changed(name, outcome, place)
            return outcome.text
        return text

    def _compare(self, stage: Stage, scratch: Path) -> None:
        """Drop the texts that are there already."""
        active = self._cleaning.active

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

        if "exact" in active:
            drop_exact(stage, found("exact"), self._progress("exact", stage))
        if "near" in active:
            progress = self._progress("near", stage)
            similarity = self._cleaning.near_similarity
            too_long = drop_near(stage, similarity, scratch, found("near"), progress)
            if too_long:
                self._notes.append(
                    f"{too_long:,} texts of more than 16 million characters stay: near compares "
                    "shorter ones"
                )

    def _without_lines(self, stage: Stage, scratch: Path) -> Stage:
        """Take out the lines that many texts have: on another stage.

        Copies in different frames are the same without them, so the texts are compared again.
        """
        least, progress = self._cleaning.line_documents, self._progress("lines", stage)
        lines = RepeatedLines(stage, least, scratch, progress)
        if not lines.texts_with:
            return stage
        plain = Stage(scratch / "texts without lines")
        for number, text in stage.texts():
            place = stage.place(number)
            left, removed = lines.without(text)
            if removed and not left.strip():
                drop = Drop("nothing else", "all of its lines are in many texts")
                self._accounts.dropped("lines", drop, place, text)
                continue
            if removed:
                counts = Counter({"lines": len(removed)})
                self._accounts.changed("lines", Change(left, counts, removed=removed), place)
            plain.add(left, place)
        stage.close()
        plain.finish()
        self._compare(plain, scratch)
        return plain

    def _write(self, stage: Stage) -> TextWriter:
        """Write the texts that are left."""
        writer = TextWriter(self._folder)
        texts: Iterator[tuple[Place, str]] = ((stage.place(n), text) for n, text in stage.texts())
        if "length" in self._cleaning.active:
            length = Length(self._cleaning, self._tokenizer)
            texts = self._of_length(texts, length)
        for place, text in texts:
            writer.write(text, place)
            self._tell(f"written {writer.texts:,} texts")
        writer.close()
        return writer

    def _of_length(
        self, texts: Iterator[tuple[Place, str]], length: Length
    ) -> Iterator[tuple[Place, str]]:
        for place, text in texts:
            drop = length(text)
            if drop is None:
                yield place, text
            else:
                self._accounts.dropped("length", drop, place, text)

    def _nothing_left(self, count: int, left_out: LeftOut) -> str:
        """Say which filters dropped everything."""
        most = sorted(self._accounts.by_filter.items(), key=lambda item: -item[1].dropped)
        name, account = most[0]
        example = f"; {account.examples[0]}" if account.examples else ""
        return (
            f"no text of {count:,} is left: {name} dropped {account.dropped:,}{example}: leave it "
            f"out with --without {name}"
        )

    def _progress(self, name: str, stage: Stage) -> Callable[[int], None]:
        total = len(stage)
        return lambda number: self._tell(f"{name}: {number:,} of {total:,} texts")

    def _tell(self, line: str) -> None:
        now = time.monotonic()
        if now - self._logged >= PROGRESS_S:
            self._logged = now
            self._log(line)
