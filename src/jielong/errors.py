"""Errors that the user can fix; the command line prints them without a traceback."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class JielongError(Exception):
    """An error that the user can fix. The message names the file, line or field, and the fix."""


class ConfigError(JielongError):
    """A field is unknown, out of range, or conflicts with another."""


class DataError(JielongError):
    """A text, tokenizer or prepared dataset that cannot be used."""


class CheckpointError(JielongError):
    """A checkpoint that is missing, damaged, or belongs to another model."""


class TrainingError(JielongError):
    """Training cannot continue; the last valid checkpoint is kept."""


class AnotherRankError(JielongError):
    """Another process of this run has failed, and has said why: this one only ends."""

    def __init__(self) -> None:
        super().__init__("another rank failed; see its error message")
