"""Ctrl-C and SIGTERM as requests that work looks at when it can stop, instead of an end in the middle."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Caught:
    """``signal``: the first that came, or None. ``again``: whether Ctrl-C came after it."""

    signal: int | None = None
    again: bool = False


@contextlib.contextmanager
def caught_signals(*, second_stops: bool) -> Iterator[Caught]:
    """Note SIGINT and SIGTERM instead of dying; outside the main thread, where no signal comes, nothing is noted.

    Args:
        second_stops: a Ctrl-C after the first signal raises KeyboardInterrupt; else it is only noted.
    """
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, frame: FrameType | None) -> None:
        caught.again = caught.again or (caught.signal is not None and number == signal.SIGINT)
        caught.signal = caught.signal or number
        if caught.again and second_stops:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
