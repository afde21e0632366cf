"""Messages and progress on stderr: a rich bar on a terminal, plain lines elsewhere. stdout is for results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gancore.text import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from gancore.training import Tick

PATIENCE = 2.0
"""Seconds of work after which progress is shown."""

INTERVAL = 5.0
"""Seconds between plain lines of progress."""


def is_terminal() -> bool:
    """Whether stderr can show a live display."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"


class Reporter:
    """What a command tells its user while it works.

    Use it as a context manager: a bar is taken down on the way out, whatever happens.
    """

    def __init__(self) -> None:
        self._next_line = -1.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if is_terminal():
            self._open_bar()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def say(self, text: str) -> None:
        """A line for the reader, above the bar if there is one."""
        if self._bar is not None and self._task is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def stage(self, name: str) -> None:
        """Show that work of unknown length goes on; only a terminal shows it."""
        self._show(name, None)

    def reading(self, done: int, total: int) -> None:
        """Progress while data is read; shown once that takes longer than two seconds."""
        self.counting("reading data", done, total, "images")
        if done == total:
            self.stage("preparing")

    def counting(self, name: str, done: int, total: int, noun: str) -> None:
        """Progress of work of known length; without a terminal, lines once it takes longer than two seconds."""
        if self._bar is not None:
            self._show(name, total, completed=done)
        elif self._next_line < 0:
            self._next_line = time.monotonic() + PATIENCE
        elif self._line_is_due():
            self.say(f"{name}: {done:,} of {total:,} {noun}")

    def training(self, first: int, steps: int, position: Callable[[], int]) -> None:
        """Begin the bar of a run. ``position`` is asked for the current step on every refresh."""
        self._next_line = 0.0
        self._show("training", steps, completed=first, position=position, info="")

    def tick(self, tick: Tick) -> None:
        """Show a tick of a run."""
        if not tick.moments:
            return
        facts = describe_tick(tick.images_per_second, tick.moments)
        left = f"ETA {duration(tick.seconds_left)}" if tick.step < tick.steps else ""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=tick.step, info="  ".join(filter(None, (facts, left))))
        elif self._line_is_due() or tick.step == tick.steps:
            self.say("  ".join(filter(None, (f"step {tick.step:,} of {tick.steps:,}", facts, left))))

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_line:
            return False
        self._next_line = now + INTERVAL
        return True

    def _open_bar(self) -> None:
        from rich.console import Console

        self._bar = _live_progress(Console(stderr=True))
        self._bar.start()

    def _show(self, name: str, total: int | None, **fields: Any) -> None:
        if self._bar is None:
            return
        if self._task is not None and self._bar.tasks[0].description == name:
            self._bar.update(self._task, total=total, **fields)
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=total, **{"info": "", "position": None, **fields})


def _live_progress(console: Any) -> Progress:
    """A bar that asks the running trainer where it is, so that it moves between ticks as well."""
    from collections.abc import Iterable

    from rich.console import RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn

    class Count(MofNCompleteColumn):
        def render(self, task: Task) -> Any:
            return super().render(task) if task.total is not None else ""

    class LiveProgress(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            for task in self.tasks:
                position = task.fields.get("position")
                if position is not None:
                    task.completed = position()
            yield self.make_tasks_table(self.tasks)

    return LiveProgress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        Count(),
        TextColumn("{task.fields[info]}", markup=False),
        console=console,
        transient=True,
        redirect_stdout=False,
        refresh_per_second=4,
    )


def describe_tick(images_per_second: float, moments: Mapping[str, Mapping[str, float]]) -> str:
    """``"183 images/s  loss d 1.300  g 0.681"``."""
    losses = [f"{name[5:]} {moments[name]['mean']:.3f}" for name in sorted(moments) if name.startswith("loss/")]
    speed = f"{images_per_second:,.0f} images/s"
    return f"{speed}  loss {'  '.join(losses)}" if losses else speed
