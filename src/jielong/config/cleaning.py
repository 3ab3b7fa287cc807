"""Settings of `jielong clean`: which filters run, and what each of them drops."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from jielong.config.fields import FieldSpec, option, section_fields
from jielong.config.hints import hint, nearest
from jielong.errors import ConfigError

# in the order in which they run: each text alone first, then all texts together
FILTERS = {
    "personal": "personal data, which is masked",
    "quality": "texts that do not read as prose, by Gopher's rules",
    "repetition": "texts that repeat themselves, by Gopher's rules",
    "web": "lists, menus and notices of web pages, by the rules of C4 and FineWeb",
    "language": "texts in other languages than --languages",
    "contamination": "texts that share passages with evaluation texts, --against",
    "exact": "texts that are there already",
    "near": "texts that are nearly there already",
    "lines": "lines that many texts have, but for the first of these",
    "length": "texts outside of --min-chars, --max-chars, --min-tokens, --max-tokens",
}
DEFAULT = ("exact", "near")
WORDS = {"default": DEFAULT, "all": tuple(FILTERS), "none": ()}
PERSONAL = ("email", "ip", "phone", "id", "card")
# a filter that needs a setting, which also turns it on
NEEDS = {
    "language": ("languages",),
    "contamination": ("against",),
    "length": ("min_chars", "max_chars", "min_tokens", "max_tokens"),
}
SECTION = "cleaning"


@dataclass(frozen=True)
class CleaningConfig:
    """Which filters run, and what each drops."""

    filters: tuple[str, ...] = option(
        ("default",),
        "Filters to run: default (exact near), all, none, or names: " + " ".join(FILTERS),
    )
    without: tuple[str, ...] = option((), "Filters to leave out.", choices=tuple(FILTERS))
    near_similarity: float = option(
        0.8,
        "near: least share of their sequences of 5 words (or Chinese characters) that two texts "
        "have in common.",
        low=0.5,
        high=1.0,
    )
    line_documents: int = option(
        10,
        "lines: take a line of 20 bytes or more out of all texts but one, if so many have it.",
        low=2,
    )
    languages: tuple[str, ...] = option(
        (), "language: keep these, as ISO 639-1 names them: en zh …; turns the filter on."
    )
    against: tuple[str, ...] = option(
        (), "contamination: evaluation texts, as --data-path takes them; turns the filter on."
    )
    overlap: int = option(
        13,
        "contamination: words (or Chinese characters) in a row that a text may not share with an "
        "evaluation text.",
        low=5,
        high=100,
    )
    personal: tuple[str, ...] = option(PERSONAL, "personal: what to mask.", choices=PERSONAL)
    min_chars: int | None = option(None, "length: least characters; turns the filter on.", low=1)
    max_chars: int | None = option(None, "length: most characters; turns the filter on.", low=1)
    min_tokens: int | None = option(
        None, "length: least tokens of --tokenizer; turns the filter on.", low=1
    )
    max_tokens: int | None = option(
        None, "length: most tokens of --tokenizer; turns the filter on.", low=1
    )

    @property
    def active(self) -> tuple[str, ...]:
        """The filters that run, in order."""
        named = {name for word in self.filters for name in WORDS.get(word, (word,))}
        if "all" in self.filters:  # but those that need to be told what to do
            named -= {name for name in NEEDS if name not in self.filters}
        named |= {name for name, settings in NEEDS.items() if self._any(settings)}
        return tuple(name for name in FILTERS if name in named and name not in self.without)

    def validated(self) -> CleaningConfig:
        """Return these settings, or raise a ConfigError that names the field and the fix."""
        for name, spec in FIELDS.items():
            spec.check(getattr(self, name))
        for word in self.filters:
            if word not in (*WORDS, *FILTERS):
                known = (*WORDS, *FILTERS)
                raise ConfigError(
                    f"cleaning.filters={word!r} is not one of {', '.join(known)}"
                    + nearest(word, known)
                )
        for name, settings in NEEDS.items():
            flags = " or ".join("--" + s.replace("_", "-") for s in settings)
            if name in self.filters and not self._any(settings):
                raise ConfigError(f"the filter {name} needs to be told what to drop: give {flags}")
            if name in self.without and self._any(settings):
                raise ConfigError(
                    f"cleaning.without={name}, but {flags} asks for it: leave one out"
                )
        for low, high in (("min_chars", "max_chars"), ("min_tokens", "max_tokens")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ConfigError(f"cleaning.{low}={least} is above cleaning.{high}={most}")
        if not self.active:
            raise ConfigError("no filter is left to run: name some with --filters")
        return self

    def _any(self, settings: tuple[str, ...]) -> bool:
        return any(getattr(self, name) not in (None, ()) for name in settings)


FIELDS: dict[str, FieldSpec] = section_fields(SECTION, CleaningConfig)


def make_cleaning(**values: Any) -> CleaningConfig:
    """Create validated settings from the given values, by name.

    Raises:
        ConfigError: a name is unknown, a value is invalid, or two contradict each other.
    """
    for name in values:
        if name not in FIELDS:
            raise ConfigError(f"unknown setting cleaning.{name}{hint(name, FIELDS)}")
    parsed = {name: FIELDS[name].parse(value) for name, value in values.items()}
    return dataclasses.replace(CleaningConfig(), **parsed).validated()
