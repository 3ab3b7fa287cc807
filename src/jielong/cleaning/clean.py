"""Text → the text that is worth learning: one filter after another, each accounted for.

Filters that look at one text alone run as it is read. The others compare texts with each other, so
those that are left lie on disk meanwhile. The folder is written atomically; killed, it is begun
again. The same text and settings give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jielong.cleaning.marks import Bands
from jielong.cleaning.pipeline import Cleaning
from jielong.cleaning.report import FORMAT, CleanReport
from jielong.config.cleaning import CleaningConfig
from jielong.config.engine import LOCAL, Engine
from jielong.config.settings import DataConfig
from jielong.data.prepare.left_out import strict_error
from jielong.data.prepare.provenance import Sources, source_changes, source_record
from jielong.data.sources.documents import Source, expand_sources
from jielong.data.sources.file_kinds import further_suffixes
from jielong.data.sources.listing import CLEANED
from jielong.errors import ConfigError, DataError
from jielong.runtime.atomic import atomic_folder
from jielong.runtime.files import sha256
from jielong.runtime.tasks import tasks_of
from jielong.tokenization.tokenizer import Tokenizer

# the settings of the text that decide what its texts are
TEXT_SETTINGS = (
    *("text_field", "text_template", "text_unit", "document_separator", "html_text", "encoding"),
)

Log = Callable[[str], None]


def clean(
    data: DataConfig,
    cleaning: CleaningConfig,
    out_dir: Path,
    log: Log = lambda line: None,
    engine: Engine = LOCAL,
) -> CleanReport:
    """Clean the text of `data` into a new folder, or report on the same one made before.

    Args:
        log: called with progress lines.
        engine: where the text is read and judged; what comes out is the same.

    Raises:
        ConfigError: a filter lacks its library or a tokenizer, or the engine cannot be used.
        DataError: the text cannot be read, none of it is left, or `out_dir` holds something else.
    """
    tokenizer = _tokenizer(data, cleaning)
    sources = Sources.of(data)
    against = _against(data, cleaning)
    made_from = _made_from(data, cleaning, sources, against, tokenizer)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        return _reused(out_dir, made_from, data.strict)
    if "near" in cleaning.active:
        Bands(cleaning.near_similarity)  # without its library, say so before the work
    with tasks_of(engine) as tasks, atomic_folder(out_dir) as folder:
        run = Cleaning(data, cleaning, folder, log, tokenizer, tasks)
        record = run.run(sources, against) | {"made_from": made_from}
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (folder / CLEANED).write_text(text, encoding="utf-8")
    return CleanReport.of_record(out_dir, record)


def _tokenizer(data: DataConfig, cleaning: CleaningConfig) -> Tokenizer | None:
    if data.tokenizer is not None:
        return Tokenizer.load(data.tokenizer, data.bos_token, data.eos_token)
    for name in ("min_tokens", "max_tokens"):
        if getattr(cleaning, name) is not None:
            raise ConfigError(
                f"cleaning.{name} counts tokens: give the --tokenizer that makes them"
            )
    return None


def _against(data: DataConfig, cleaning: CleaningConfig) -> list[Source]:
    if "contamination" not in cleaning.active:
        return []
    return expand_sources(cleaning.against, further_suffixes(data.text_suffixes))


def _made_from(
    data: DataConfig,
    cleaning: CleaningConfig,
    sources: Sources,
    against: list[Source],
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:
    """Collect what determines the result."""
    settings = {f"data.{name}": getattr(data, name) for name in TEXT_SETTINGS}
    settings |= {f"cleaning.{n}": v for n, v in dataclasses.asdict(cleaning).items()}
    settings |= {"cleaning.filters": cleaning.active, "tokenizer": None}
    del settings["cleaning.without"]
    if tokenizer is not None:
        settings["tokenizer"] = tokenizer.fingerprint[:12]
    made_from = {
        "format": FORMAT,
        "settings": settings,
        "data": [source_record(source) for source in sources.data],
        "against": [source_record(source) for source in against],
    }
    plain: dict[str, Any] = json.loads(json.dumps(made_from))  # tuples are lists there
    return plain


def _reused(folder: Path, made_from: dict[str, Any], strict: bool) -> CleanReport:
    """Report on the folder that is there, after checking that it is the wanted one."""
    again = "choose another --out-dir, or delete it"
    if not (folder / CLEANED).is_file():
        raise DataError(f"{folder}: exists but is no cleaned text: {again}")
    try:
        record = json.loads((folder / CLEANED).read_text(encoding="utf-8"))
        stored = record["made_from"]
        found = _changes(stored, made_from)
        files = record["files"].items()
        damaged = [name for name, entry in files if sha256(folder / name) != entry["sha256"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{folder}: its {CLEANED} or its files are damaged: {again}") from None
    if found:
        raise DataError(f"{folder}: holds other cleaned text: {'; '.join(found[:5])}: {again}")
    if damaged:
        raise DataError(f"{folder / damaged[0]}: has changed since it was cleaned: {again}")
    report = CleanReport.of_record(folder, record, reused=True)
    if strict and report.left_out.first is not None:
        raise strict_error(report.left_out.first)
    return report


def _changes(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = []
    if stored["format"] != wanted["format"]:
        found.append("it was made by another version")
    for name, value in wanted["settings"].items():
        then = stored["settings"].get(name)
        if then != value:
            found.append(f"its {name} is {_words(then)}, not {_words(value)}")
    return found + [
        change
        for part in ("data", "against")
        for change in source_changes(stored[part], wanted[part])
    ]


def _words(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
