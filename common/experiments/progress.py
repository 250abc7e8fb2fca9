"""What a user sees while cells run: a bar with cells done, running, failed and the time left, and under it the last
line of each running cell's log; plain lines where there is no terminal."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from common.experiments.jobs import tail
from common.experiments.launch import Event
from common.experiments.records import Record


def duration(seconds: float) -> str:
    """`45 s`, `7 min`, `3.2 h`, `4,000 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{rounded(seconds / 3600)} h"


def rounded(value: float) -> str:
    """One decimal below ten, none above: `3.2`, `4,000`."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


class _TimeLeft(ProgressColumn):
    """Time left from the cells finished so far, or from the expectation before the first."""

    max_refresh = 1.0

    def render(self, task: Task) -> Text:
        done = int(task.completed)
        elapsed = task.elapsed or 0.0
        per_cell = elapsed / done if done else task.fields["expected"] / max(1, int(task.total or 1))
        left = per_cell * ((task.total or 0) - done) - (0 if done else elapsed)
        return Text(f"{duration(max(0.0, left))} left", style="cyan")


class _Watched(Progress):
    """A bar, and under it the last line that each running cell wrote."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        self.running: dict[Record, str] = {}  # -> its label
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for record, label in list(self.running.items()):
            for line in tail(record.folder / "log.txt", 1):
                yield Text(f"  {label}: {line}", style="dim", no_wrap=True, overflow="ellipsis")


@contextmanager
def progress(
    console: Console, title: str, labels: dict[Record, str], expected_seconds: float
) -> Iterator[Callable[[Event], None]]:
    """Show the events of a launcher until the block ends.

    Args:
        labels: what each cell to compute is called.
        expected_seconds: wall time of all of them together, before anything is measured.
    """
    if not console.is_terminal:
        yield _PlainLines(console, labels)
        return
    columns = [
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn(
            "{task.completed}/{task.total} cells · {task.fields[running]} running · {task.fields[failed]} failed"
        ),
        TimeElapsedColumn(),
        _TimeLeft(),
    ]
    with _Watched(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task(title, total=len(labels), running=0, failed=0, expected=expected_seconds)
        failed = 0

        def listen(event: Event) -> None:
            nonlocal failed
            if event.state == "running":
                bar.running[event.record] = labels[event.record]
            else:
                bar.running.pop(event.record, None)
            failed += event.state == "failed"
            ended = event.state != "running"
            bar.update(task, advance=ended, running=len(bar.running), failed=failed, refresh=True)
            if event.state == "failed":
                bar.console.print(
                    Text(f"failed: {labels[event.record]}: {_reason(event)}", style="red"), soft_wrap=True
                )

        yield listen


class _PlainLines:
    """One line per finished cell, for logs and pipes."""

    def __init__(self, console: Console, labels: dict[Record, str]) -> None:
        self._console, self._labels = console, labels
        self._ended = 0
        self._started: dict[Record, float] = {}

    def __call__(self, event: Event) -> None:
        if event.state == "running":
            self._started[event.record] = time.monotonic()
            return
        self._ended += 1
        seconds = time.monotonic() - self._started.get(event.record, time.monotonic())
        line = f"[{self._ended}/{len(self._labels)}] {event.state}: {self._labels[event.record]} ({duration(seconds)})"
        self._console.print(Text(line + (f": {_reason(event)}" if event.error else "")), soft_wrap=True)


def _reason(event: Event) -> str:
    """A failure's line, with the file that holds the traceback."""
    traceback = event.record.folder / "error.txt"
    return f"{event.error} (traceback: {os.path.relpath(traceback)})" if traceback.exists() else event.error
