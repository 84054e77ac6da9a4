"""What can go wrong through no fault of the program, each with the exit code of the runner.

Every message is one line that says what was got, what is valid and what to do; the runner
prints it without a traceback.
"""

import difflib
from collections.abc import Iterable, Sequence

_LONGEST = 200  # letters of another program's message, which may go on for pages
# A message that already names the nearest one lists no more valid names than these.
_MOST_NAMES = 8


class FairDDError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 1


class ConfigError(FairDDError, ValueError):
    """A wrong name, field or value."""

    exit_code = 2


class DataError(FairDDError):
    """Missing or damaged data; the message says what to get and where to put it."""

    exit_code = 3


class WorkdirError(FairDDError):
    """The output folder cannot be written, is locked or is full."""

    exit_code = 4


class NonFiniteLossError(FairDDError):
    """The matching loss, or what a network in training gives, became NaN or infinite."""

    exit_code = 5


def one_line(error: Exception) -> str:
    """What an error of the system or of a library says, in one line.

    >>> one_line(ValueError("bad\\n  magic number")), one_line(EOFError())
    ('bad magic number', 'EOFError')
    """
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def first_few(
    names: Sequence[str], most: int, *, number: int | None = None, separator: str = ", "
) -> str:
    """The first names, and how many more there are.

    Args:
      names: the first ones at least.
      most: how many are shown.
      number: how many there are, if not all of them are given.
      separator: between two of them.

    >>> first_few(["a", "b", "c"], 2), first_few(["a", "b"], 2, number=2000)
    ('a, b and 1 more', 'a, b and 1,998 more')
    """
    shown = names[:most]
    left = (len(names) if number is None else number) - len(shown)
    return separator.join(shown) + (f" and {left:,} more" if left else "")


def unknown_name(kind: str, got: str, valid: Iterable[str]) -> ConfigError:
    """The error for a misspelt name, naming the nearest valid one, or all of them if none is near.

    >>> str(unknown_name("method", "dmm", ["dm", "dc"]))
    "unknown method 'dmm'; did you mean 'dm'? Valid: dc, dm"
    """
    names = sorted(valid)
    near = difflib.get_close_matches(got, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    shown = names if not near or len(names) <= _MOST_NAMES else near
    more = f" and {len(names) - 1} others" if shown is near else ""
    return ConfigError(f"unknown {kind} '{got}'; {hint}Valid: {', '.join(shown)}{more}")
