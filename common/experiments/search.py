"""`repro sweep --search random|tpe`: draw trials, follow them on a launcher, report them, run what was chosen.

The chosen settings of each row and column run again at the table's own seeds: the search has never seen these.
"""

import itertools
import math
import os
import shlex
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import FileLock
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from common.evaluators.statistics import mean_interval
from common.experiments import render
from common.experiments.cluster import scripts
from common.experiments.commands import Following, check_needs, mirror, run_cells, submit_cells
from common.experiments.compose import Table
from common.experiments.fingerprint import digest, pin
from common.experiments.jobs import standings
from common.experiments.launch import Launcher, local_workers
from common.experiments.progress import duration
from common.experiments.records import Cell, Record, now
from common.experiments.reproduce import LAUNCHERS, Plan, freeze, manifest_head
from common.experiments.sweep import check_selection, selected_on
from common.experiments.trials import Search, Space, Study, Trial, seconds, selected, storage
from common.files import write_atomically

LOOK = 0.5  # seconds between two looks at the curves of running cells
IN_FLIGHT = 8  # trials at once on a cluster without `launcher.workers`, where the sampler learns from those that ended
SHOWN = 10  # trials of each study in the terminal; the report has all
WORDS = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Ledger:
    """All studies of one command, the lock that commands share, and the manifest that names their cells."""

    base: Table
    name: str
    studies: Sequence[Study]
    overrides: Sequence[str]
    lock: FileLock

    @classmethod
    def load(
        cls, space: Space, search: Search, base: Table, rows: Sequence[str], overrides: Sequence[str], dry: bool
    ) -> "Ledger":
        """Load or create the studies; `dry`: in memory, leaving no trace."""
        sought = [list(base.overrides), {key: distribution_to_json(found) for key, found in space.keys.items()}]
        how = [search.sampler, search.seeds, search.prune, base.selection.metric, base.selection.better]
        name = f"{base.table}.{base.scale}+search-{digest([sought, how], 6)}"
        journal = base.runs / base.paper / "studies" / f"{name}.journal"
        place: BaseStorage = InMemoryStorage() if dry else storage(journal)
        conditions = [(row, column) for row in rows for column in base.columns]
        studies = [Study.load(space, search, base, condition, place) for condition in conditions]
        return cls(base, name, studies, overrides, FileLock(journal.with_suffix(".lock")))

    def ask(self, study: Study) -> Trial | None:
        """The next trial, drawn by one command at a time."""
        with self.lock:
            return study.ask()

    def take(self, trials: Sequence[Trial]) -> None:
        """Freeze their cells and note them, before they start; who drew a trial may have been killed before that."""
        with self.lock:
            self.note([(trial.table, trial.overrides, cell) for trial in trials for cell in trial.cells.values()])

    def note(self, cells: Sequence[tuple[Table, Sequence[str], Cell]]) -> Plan:
        """Freeze cells that are not done, and add them to the manifest under their row with its values."""
        records = [(cell, table.store.record(cell.key)) for table, _, cell in cells]
        plan = Plan(records, {record: cell for cell, record in records if not record.done}, [])
        drawn = [_named(s.row, s.space.overrides(trial.params)) for s in self.studies for trial in s.trials]
        head = {**manifest_head(self.base), "kind": "sweep", "overrides": list(self.overrides), "rows": drawn}
        freeze(self.base, plan, self.name, head, [_named(cell.row, overrides) for _, overrides, cell in cells])
        return plan


def _named(row: str, overrides: Sequence[str]) -> str:
    """What a cell's row is called in the manifest: with the values of its trial."""
    return " ".join((row, *overrides))


class Pursuit:
    """Trials in flight on one launcher, each told as soon as its cells have ended, another started in its place."""

    def __init__(
        self, ledger: Ledger, launcher: Launcher, capacity: int, say: Callable[[Trial, TrialState, str], None]
    ) -> None:
        self._ledger, self._launcher, self._capacity, self._say = ledger, launcher, capacity, say
        self._running: list[Trial] = []
        self._tried: set[tuple[str, int]] = set()
        self._ends: dict[Record, str] = {}  # cells that have ended; with a reason where they failed
        self._turns = deque(ledger.studies)
        self._began = now()
        self._left: deque[Trial] = deque()  # by commands before this one
        self._guard = threading.Lock()  # of the trials, between the looks and this thread

    def run(self) -> None:
        """To the end of all trials."""
        self._left.extend(t for t in self._open() if not any(record.state() == "running" for record in t.cells))
        with _repeating(self._look) as looking:
            while self._refill():
                for event in self._launcher.events():
                    if event.state != "running":
                        self._ends[event.record] = event.error
                        self._refill()
                    if looking.done():
                        looking.result()

    def _look(self) -> None:
        for trial in list(self._running):
            with self._guard:
                trial.look()

    def _refill(self) -> bool:
        """Settle trials whose cells have ended and start others in their place; whether any is in flight."""
        while True:
            for trial in list(self._running):
                if all(record in self._ends or record.done for record in trial.cells):
                    self._running.remove(trial)
                    with self._guard:
                        state = trial.settle()
                    self._say(trial, state, next(filter(None, map(self._ends.get, trial.cells)), ""))
            if len(self._running) >= self._capacity or (fresh := self._next()) is None:
                return bool(self._running)
            self._start(fresh)

    def _start(self, trial: Trial) -> None:
        self._ledger.take([trial])
        taken = {record for other in self._running for record in other.cells}
        self._ends |= {record: "" for record in trial.cells if trial.pruned(record)}
        wanted = {r: cell for r, cell in trial.cells.items() if not (r.done or r in taken or r in self._ends)}
        self._tried.add(trial.name)
        self._running.append(trial)
        self._launcher.submit(wanted)

    def _next(self) -> Trial | None:
        """What commands before this one left, then new trials of each study in turn, then what others have open."""
        if self._left:
            return self._left.popleft()
        for _ in range(len(self._turns)):
            self._turns.rotate(-1)
            if (trial := self._ledger.ask(self._turns[-1])) is not None:
                return trial
        return next((trial for trial in self._open() if not any(map(self._failed_since, trial.cells))), None)

    def _open(self) -> list[Trial]:
        with self._ledger.lock:
            return [trial for study in self._ledger.studies for trial in study.open(self._tried)]

    def _failed_since(self, record: Record) -> bool:
        status = record.status()
        return status["state"] == "failed" and str(status.get("ended_at", "")) >= self._began


@contextmanager
def _repeating(look: Callable[[], None]) -> Iterator["Future[None]"]:
    """Call `look` every LOOK seconds beside the block; what it raises comes out at the end, or by the future."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(LOOK):
            look()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(loop)
        try:
            yield future
        finally:
            stop.set()
    future.result()


def capacity(table: Table, search: Search) -> int:
    """Trials in flight: as many as keep the workers busy."""
    if table.launcher.name == "local":
        workers = local_workers(table)
    elif table.launcher.workers is not None:
        workers = table.launcher.workers
    else:
        return search.trials if search.sampler == "random" else IN_FLIGHT
    return math.ceil(workers / search.seeds) + (workers % search.seeds > 0)


def run_search(
    name: str, scale: str, overrides: Sequence[str], search: Search, rows: Sequence[str] | None, following: Following
) -> int:
    """Search, report, and run the chosen settings at the table's seeds; 1 when a cell failed or nothing was chosen."""
    pin()  # one study, one code
    console = Console()
    space = Space.of(name, scale, overrides)
    base = space.table(space.example())
    base.check_rows(rows or [])
    check_selection(base)
    space.check(base, rows or list(base.rows))
    check_needs(base, following)
    ledger = Ledger.load(space, search, base, rows or list(base.rows), overrides, following.dry_run)
    room = capacity(base, search)
    if following.dry_run:
        drawn = [trial for _ in range(room) for study in ledger.studies if (trial := study.ask()) is not None]
        print(scripts(base, {r: c for trial in drawn[:room] for r, c in trial.cells.items() if not r.done}))
        return 0
    _announce(console, ledger, search)
    if following.detached(base):
        if missing := advance(ledger, room):
            return submit_cells(console, base, Plan([], missing, []))
    else:
        Pursuit(ledger, LAUNCHERS[base.launcher.name](base), room, _teller(console, base)).run()

    chosen = [Choice.of(study, best) for study in ledger.studies if (best := study.best()) is not None]
    with ledger.lock:
        plan = ledger.note([(choice.table, choice.overrides, cell) for choice in chosen for cell in choice.cells])
    if plan.missing and following.detached(base):
        return submit_cells(console, base, plan)
    if plan.missing:
        console.print(Text(f"running the chosen settings at seeds 0-{base.seeds - 1}: {len(plan.missing)} cells"))
    failed = run_cells(console, base, plan)

    text = [_markdown_head(name, scale, overrides, search, base, ledger)]
    for study in ledger.studies:
        headings, lines = _trials(study, base)
        heading, summary = f"{study.row} · {study.column}", _cost(study, base)
        _print(console, heading, headings, lines[:SHOWN], len(lines) - SHOWN, summary)
        text += [f"## {heading}", render.markdown_table(render.Grid(headings, lines)), "", f"{summary}\n"]
    headings, lines = _fresh(base, chosen)
    if lines:
        title = f"The chosen settings at seeds 0-{base.seeds - 1}, which the search has not seen"
        commands = [f"    {choice.command(name, scale)}" for choice in chosen]
        _print(console, title, headings, lines, 0, "\n".join(commands))
        text += [f"## {title}", render.markdown_table(render.Grid(headings, lines)), "", *commands, ""]
    path = base.runs / base.paper / "reports" / f"{ledger.name}.md"
    write_atomically(path, "\n".join(text))
    console.print(Text(f"report: {os.path.relpath(path)}"), soft_wrap=True)
    mirror(console, base, ledger.name)
    open_trials = any(not trial.state.is_finished() for study in ledger.studies for trial in study.trials)
    return 1 if failed or open_trials or len(chosen) < len(ledger.studies) else 0


def advance(ledger: Ledger, room: int) -> dict[Record, Cell]:
    """What a command does that does not wait: judge the trials in flight, draw others for those that have ended.

    Returns:
        Cells that the trials in flight still need, failed ones included: nothing, when the search is over.
    """
    with ledger.lock:
        open_trials = [trial for study in ledger.studies for trial in study.open()]
    known = standings(ledger.base.store, [r.folder.name for trial in open_trials for r in trial.cells])
    left = []
    for trial in open_trials:
        trial.look()
        alive = any(known[r.folder.name].alive or known[r.folder.name].state == "running" for r in trial.cells)
        if alive or trial.settle() == TrialState.FAIL:
            left.append(trial)
    drawn: list[Trial] = []
    busy = sum(not any(known[r.folder.name].state == "failed" for r in trial.cells) for trial in left)
    for study in itertools.cycle(ledger.studies):
        if busy >= room or all(len(s.trials) >= s.search.trials for s in ledger.studies):
            break
        if fresh := ledger.ask(study):
            drawn.append(fresh)
            if fresh.settle() == TrialState.FAIL:  # not all of its cells were computed before
                left.append(fresh)
                busy += 1
    ledger.take([*open_trials, *drawn])
    return {r: cell for trial in left for r, cell in trial.cells.items() if not (r.done or trial.pruned(r))}


@dataclass(frozen=True)
class Choice:
    """The best trial of a study, and its cells at the seeds that the table reports."""

    study: Study
    trial: FrozenTrial
    table: Table

    @classmethod
    def of(cls, study: Study, trial: FrozenTrial) -> "Choice":
        return cls(study, trial, study.space.table(trial.params))

    @property
    def overrides(self) -> tuple[str, ...]:
        return self.study.space.overrides(self.trial.params)

    @property
    def cells(self) -> list[Cell]:
        return [self.table.cell(self.study.row, self.study.column, seed) for seed in range(self.table.seeds)]

    def command(self, name: str, scale: str) -> str:
        """Computes the row of the table with these settings."""
        return shlex.join(["repro", "table", name, "--scale", scale, "--rows", self.study.row, *self.table.overrides])


# What is shown


def _announce(console: Console, ledger: Ledger, search: Search) -> None:
    base, count = ledger.base, len(ledger.studies)
    ended = sum(trial.state.is_finished() for study in ledger.studies for trial in study.trials)
    where = f"on {local_workers(base)} workers" if base.launcher.name == "local" else f"by {base.launcher.name}"
    each = f"{search.trials} trials of {search.seeds} seed{'s' * (search.seeds > 1)}"
    of = f" for each of {count} rows and columns" if count > 1 else ""
    line = (
        f"{base.paper}/{base.table} at {base.scale} scale: {each}{of}, {ended} ended; {search.sampler} search {where}"
    )
    console.print(Text(line), soft_wrap=True)


def _teller(console: Console, base: Table) -> Callable[[Trial, TrialState, str], None]:
    """One line for each trial that ends."""

    def tell(trial: Trial, state: TrialState, reason: str) -> None:
        seen = trial.study.trials[trial.asked.number]
        value = f" {base.selection.metric} {seen.values[0]:.4g}" if state == TrialState.COMPLETE else ""
        cost = duration(seconds(trial.cells))
        line = f"{WORDS[state]}: {trial.label}{value} ({cost})" + (f": {reason}" if reason else "")
        console.print(Text(line), soft_wrap=True)

    return tell


def _records(base: Table, trial: FrozenTrial) -> list[Record]:
    return [base.store.record(key) for key in trial.user_attrs.get("cells", ())]


def _state(base: Table, trial: FrozenTrial) -> str:
    if trial.state.is_finished():
        at = f" at step {trial.last_step}" if trial.state == TrialState.PRUNED else ""
        return f"{WORDS[trial.state]}{at}"
    states = {record.state() for record in _records(base, trial)}
    return "failed" if states & {"failed", "timed out"} else "open"


def _trials(study: Study, base: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of a study: the best first, then what has no value to choose by."""
    sign = -1 if base.selection.better == "higher" else 1
    best = study.best()

    def order(trial: FrozenTrial) -> tuple[float, int]:
        return (sign * trial.values[0] if trial.state == TrialState.COMPLETE else math.inf), trial.number

    lines = []
    for trial in sorted(study.trials, key=order):
        records = _records(base, trial)
        values = [selected(base, record) for record in records] if trial.state == TrialState.COMPLETE else []
        drawn = [text.split("=", 1)[1] for text in study.space.overrides(trial.params)]
        star = "★" if best is not None and trial.number == best.number else ""
        cost = f"{seconds(records):.1f}"
        lines.append([star, str(trial.number), *drawn, _figure(values, base.selection.unit), _state(base, trial), cost])
    keys = [key.removeprefix("settings.") for key in study.space.keys]
    return ["", "trial", *keys, base.selection.metric, "state", "seconds"], lines


def _figure(values: Sequence[float], unit: str) -> str:
    if not values:
        return "—"
    estimate = mean_interval(values)
    return render.format_value(estimate.mean, estimate.low, estimate.high, unit)


def _cost(study: Study, base: Table) -> str:
    """What the study took: trials by how they ended, and the computing time of their cells, each counted once."""
    counts = Counter(_state(base, trial).split()[0] for trial in study.trials)
    spent: dict[str, dict[Record, None]] = {}
    for trial in study.trials:
        spent.setdefault(_state(base, trial).split()[0], {}).update(dict.fromkeys(_records(base, trial)))
    every = {record for records in spent.values() for record in records}
    parts = [f"{counts[word]} {word} ({duration(seconds(records))})" for word, records in spent.items()]
    line = (
        f"{len(study.trials)} trials, {len(every)} cells, {duration(seconds(every))} of computing: {', '.join(parts)}."
    )
    logged = any(trial.intermediate_values for trial in study.trials)
    if study.search.prune and study.trials and not logged:
        line += f" Nothing could be pruned: no cell logs '{base.selection.metric}' as it runs (context.log)."
    return line


def _fresh(base: Table, chosen: Sequence[Choice]) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of what the chosen settings reach at the seeds of the table."""
    lines = []
    for choice in chosen:
        records = [base.store.record(cell.key) for cell in choice.cells]
        done = [record.result()["metrics"] for record in records if record.done]
        figures = [_figure([each[m] for each in done if m in each], base.metrics[m].unit) for m in base.metrics]
        drawn = " ".join(choice.overrides)
        lines.append(
            [choice.study.row, choice.study.column, drawn, *figures, str(len(done)), f"{seconds(records):.1f}"]
        )
    labels = [metric.label for metric in base.metrics.values()]
    return ["row", "column", "settings", *labels, "n", "seconds"], lines


def _print(
    console: Console, title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], more: int, below: str
) -> None:
    view = Grid(box=None, padding=(0, 2, 0, 0), title=Text(title, style="bold"), title_justify="left")
    for heading in headings:
        view.add_column(Text(heading))
    for line in lines:
        view.add_row(*map(Text, line))
    console.print(view)
    if more > 0:
        console.print(Text(f"… and {more} more in the report"))
    console.print(Text(below), soft_wrap=True)


def _markdown_head(name: str, scale: str, overrides: Sequence[str], search: Search, base: Table, ledger: Ledger) -> str:
    options = ["--search", search.sampler, "--trials", str(search.trials), "--seeds", str(search.seeds)]
    rows = list(dict.fromkeys(study.row for study in ledger.studies))
    options += ["--rows", ",".join(rows)] if rows != list(base.rows) else []
    options += ["--prune"] if search.prune else []
    how = {"random": "at random", "tpe": "by Optuna's tree-structured Parzen estimator"}[search.sampler]
    pruning = " Trials below the median of earlier ones at the same step were stopped." if search.prune else ""
    return (
        f"# Search over {name} at {scale} scale\n\n"
        f"Drawn {how}; chosen on {base.selection.metric} ({base.selection.better} is better) of {selected_on(base)}; "
        f"the mean of {search.seeds} seed{'s' * (search.seeds > 1)}. The value of the chosen trial is the best of "
        f"many, hence too good: what counts are its figures at fresh seeds, below.{pruning}\n\n"
        f"    {shlex.join(['repro', 'sweep', name, '--scale', scale, *options, *overrides])}\n"
    )
