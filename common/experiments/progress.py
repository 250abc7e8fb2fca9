"""What a user sees while cells run: a bar with cells done, running, failed and the time left; plain lines elsewhere."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

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
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=len(labels), running=0, failed=0, expected=expected_seconds)
        counts = {"running": 0, "failed": 0}

        def listen(event: Event) -> None:
            counts["running"] += 1 if event.state == "running" else -1
            counts["failed"] += event.state == "failed"
            bar.update(task, advance=event.state != "running", running=counts["running"], failed=counts["failed"])
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
