"""From an exception to one message on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Sequence

import click

OK = 0
NO = 1
USAGE = 2
DEVICE = 7
FOLDER = 8
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as for any Unix tool whose reader went away

_SAVED = (75, 130)


def debugging(arguments: Sequence[str]) -> bool:
    """Whether tracebacks are wanted: ``--debug`` before the command, or GAN_DEBUG."""
    leading = []
    for argument in arguments:
        if not argument.startswith("-"):
            break
        leading.append(argument)
    return "--debug" in leading or os.environ.get("GAN_DEBUG", "0") not in ("", "0")


def prepare_streams() -> None:
    """No UnicodeEncodeError on narrow terminals; no warnings of libraries unless asked for with -W."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def report(error: BaseException, *, debug: bool = False) -> int:
    """Tell the user about an exception and return the exit code."""
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return BROKEN_PIPE
    if debug and not isinstance(error, click.ClickException | click.exceptions.Exit | KeyboardInterrupt):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return _report_usage(error)
    from gancore.errors import GancoreError

    if isinstance(error, GancoreError):
        prefix = "" if error.exit_code in _SAVED else "error: "
        _say(f"{prefix}{error}")
        return error.exit_code
    if _is_out_of_memory(error):
        first = (str(error).splitlines() or [type(error).__name__])[0]
        _say(f"error: out of memory: lower --batch, --image-size or the network's widths ({first})")
        return DEVICE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        if error.filename is None:
            _silence_stdout()
        _say(f"error: cannot write {error.filename or 'the output'}: {error.strerror}")
        return FOLDER
    _say(
        f"error: unexpected {type(error).__name__}: {error}\n"
        "This is a bug: run again with GAN_DEBUG=1 and report the traceback."
    )
    return NO


def _report_usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # only in newer versions of click
        _say(message)
        return error.exit_code
    if message[:1].isupper() and not message[1:2].isupper():
        message = message[0].lower() + message[1:]
    _say(f"error: {message}")
    if isinstance(error, click.UsageError) and context is not None:
        _say(f"Try: {context.command_path} --help")
    return error.exit_code


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening
        print(text, file=sys.stderr, flush=True)


def _silence_stdout() -> None:
    """Keep the interpreter from failing once more when it flushes stdout at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
