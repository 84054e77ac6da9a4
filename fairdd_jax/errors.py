"""What can go wrong through no fault of the program, each with the exit code of the runner.

Every message is one line that says what was got, what is valid and what to do; the runner
prints it without a traceback.
"""

import difflib
from collections.abc import Iterable

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
    """The matching loss became NaN or infinite."""

    exit_code = 5


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
