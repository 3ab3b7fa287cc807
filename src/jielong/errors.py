"""Errors that are the user's to mend: printed by the command line without a traceback."""


def first_line(error: BaseException) -> str:
    """What an error of a library says first, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class JielongError(Exception):
    """A mistake in what we were given. The message names the file, line or field, and the fix."""


class ConfigError(JielongError):
    """A field is unknown, out of range, or at odds with another."""


class DataError(JielongError):
    """A text, tokenizer or prepared dataset that cannot be used."""


class CheckpointError(JielongError):
    """A checkpoint that is missing, damaged, or belongs to another model."""


class TrainingError(JielongError):
    """Training cannot go on; the last good checkpoint stands."""
