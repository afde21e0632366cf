"""Progress: plain lines without a terminal, a bar with one, colours only where they are wanted."""

from __future__ import annotations

import io

import pytest

from gancore.cli import console
from gancore.training import Tick


def tick(step: int, steps: int = 100, snapshot: str | None = None) -> Tick:
    moments = {} if snapshot else {"loss/d": {"mean": 1.25}, "loss/g": {"mean": 0.5}, "x/y.d": {"mean": 9.0}}
    return Tick(step, steps, 8 * step, 1234.5, 75.0, moments, snapshot)


@pytest.fixture
def clock(monkeypatch):
    """Time that only a test moves."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_are_rare(capsys, clock):
    with console.Reporter() as reporter:
        reporter.training(0, 100, lambda: 0)
        for step in range(1, 101):
            clock[0] += 0.2
            reporter.tick(tick(step))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "step 1 of 100  1,234 images/s  loss d 1.250  g 0.500  ETA 1 min 15 s"
    assert lines[-1].startswith("step 100 of 100")
    assert "ETA" not in lines[-1]
    assert len(lines) == 5


def test_reading_is_silent_for_two_seconds(capsys, clock):
    with console.Reporter() as reporter:
        reporter.reading(0, 1000)
        clock[0] += 1.9
        reporter.reading(100, 1000)
        assert capsys.readouterr().err == ""
        clock[0] += 0.2
        reporter.reading(200, 1000)
    assert capsys.readouterr().err == "reading data: 200 of 1,000 images\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("colour", [True, False])
def test_bar_on_a_terminal(monkeypatch, colour):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(console.sys, "stderr", terminal)
    with console.Reporter() as reporter:
        reporter.reading(5, 10)
        reporter.training(0, 100, lambda: 42)
        reporter.tick(tick(40))
        reporter.say("a [line] for the reader")
    shown = terminal.getvalue()
    assert "a [line] for the reader" in shown
    assert "42/100" in shown
    assert ("\x1b[3" in shown or "\x1b[1;3" in shown) is colour


def test_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(console.sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not console.is_terminal()
