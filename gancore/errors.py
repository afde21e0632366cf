"""Every error a user can meet, with its documented exit code.

A message says what was found, what was expected and how to fix it. The command line prints it without a
traceback; a library caller catches :class:`GancoreError` or one of its subclasses.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GancoreError(Exception):
    """Base of all errors that gancore raises on purpose. ``exit_code`` is what ``gan`` exits with."""

    exit_code = 1


class ConfigError(GancoreError):
    """A wrong option, key, value or combination of them (exit code 2)."""

    exit_code = 2


class PluginError(GancoreError):
    """A plugin is missing, broken, raised, or conflicts with another one (exit code 3)."""

    exit_code = 3


class DataError(GancoreError):
    """The data set is missing, empty, or holds something that cannot be read (exit code 4)."""

    exit_code = 4


class DivergedError(GancoreError):
    """A loss stopped being finite (exit code 5). The last good checkpoint is intact."""

    exit_code = 5


class CheckpointError(GancoreError):
    """A checkpoint cannot be read, or the run drifted from the one that wrote it (exit code 6)."""

    exit_code = 6


class DeviceError(GancoreError):
    """The device is missing or out of memory (exit code 7)."""

    exit_code = 7


class RunFolderError(GancoreError):
    """The run folder cannot be written: disk full, no rights (exit code 8)."""

    exit_code = 8


class Interrupted(GancoreError):
    """Ctrl-C: the run was saved and can be resumed (exit code 130)."""

    exit_code = 130


class Preempted(GancoreError):
    """SIGTERM: the run was saved; please requeue (exit code 75)."""

    exit_code = 75


def nearest(name: str, candidates: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the candidate nearest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
