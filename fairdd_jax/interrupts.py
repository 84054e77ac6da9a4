"""Signals that wait until what has been computed is safe."""

import signal
import threading
from types import FrameType
from typing import Any

import jax

from fairdd_jax.hosts import any_of

TERMINATED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that it can save."""


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """What SIGTERM does instead of ending the program: a handler for `signal.signal`.

    Raises:
      Terminated: always.
    """
    raise Terminated


class Hold:
    """Holds SIGTERM and SIGINT back until the end of a block, then lets them do what they do.

    Whoever is in the block must ask `stopped` often, and leave. Of several processes none acts on a
    signal before all know of it: what came after the last question waits for the next block. Other
    threads than the main one get no signals, and nothing is held there.

    >>> with (hold := Hold()):
    ...     hold.stopped()
    False
    """

    def __init__(self) -> None:
        self._is_stopped = False
        self._is_agreed = False
        self._received: list[int] = []  # and held back
        self._before: dict[int, Any] = {}

    def stopped(self) -> bool:
        """Whether there was a signal, in any of the processes: they must ask equally often."""
        # A signal may come while the others are asked: the answer has to be the one they get.
        self._is_agreed = any_of(self._is_stopped)
        if self._is_agreed and not self._is_stopped:
            self._note(signal.SIGTERM, None)
        return self._is_agreed

    def __enter__(self) -> "Hold":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None: the handler was not set by Python, and could not be set again.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._received and error is None and (self._is_agreed or jax.process_count() == 1):
            number = self._received[0]
            self._received.clear()
            signal.raise_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_stopped = True
        self._received.append(number)
