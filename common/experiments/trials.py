"""Trials of a hyperparameter search: points that Optuna draws from a space, over ordinary cells.

    runs/<paper>/studies/<search>.journal     for each row and column: values drawn, curves, values reached

A trial is a point of the space; its cells run on validation seeds and are cells as any other: what is computed is
reused. The journal and the cells are all there is, so that a killed search goes on from them and two at once share
them. A trial whose cells failed stays open in the journal: the same command tries it again, as with tables.
"""

import math
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
from filelock import FileLock
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import TrialState

from common.experiments.compose import Table, compose_table
from common.experiments.context import PRUNE, VALIDATION_SEED
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import digest
from common.experiments.records import Cell, Record
from common.experiments.sweep import parse
from common.files import write_atomically

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
}
Values = Mapping[str, Any]  # of a trial, by swept key

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        sampler: one of SAMPLERS.
        trials: of each row and column.
        seeds: validation seeds of each trial.
        prune: stop trials whose validation metric stays below the median of earlier ones at the same step.
    """

    sampler: str
    trials: int
    seeds: int
    prune: bool


@dataclass(frozen=True)
class Space:
    """What is searched: a table with fixed overrides, and a distribution for each swept key."""

    name: str
    scale: str
    fixed: tuple[str, ...]
    keys: Mapping[str, BaseDistribution]

    @classmethod
    def of(cls, name: str, scale: str, overrides: Sequence[str]) -> "Space":
        """Read the overrides in Hydra's grammar: choices, ranges and intervals are swept, the others are fixed.

        Raises:
            UserError: a mistake in an override, or a key whose values the table refuses.
        """
        fixed, swept = parse(overrides)
        return cls(name, scale, fixed, {override.get_key_element(): distribution(override) for override in swept})

    def overrides(self, values: Values) -> tuple[str, ...]:
        """Values as the overrides that a user would write; numbers to six digits, so that what is shown is what ran."""
        return tuple(f"{key}={f'{v:.6g}' if isinstance(v, float) else v}" for key, v in values.items())

    def table(self, values: Values) -> Table:
        return compose_table(self.name, self.scale, (*self.fixed, *self.overrides(values)))

    def example(self) -> dict[str, Any]:
        """Some value of each key."""
        return {key: _two(found)[0] for key, found in self.keys.items()}

    def check(self, base: Table, rows: Iterable[str]) -> None:
        """UserError when a key takes values that the table refuses, or changes nothing in some row."""
        for key, found in self.keys.items():
            other = self.table({**self.example(), key: _two(found)[1]})
            for row in rows:
                for column in base.columns:
                    same = base.cell(row, column, VALIDATION_SEED).key == other.cell(row, column, VALIDATION_SEED).key
                    if same and not found.single():
                        raise UserError(
                            f"sweeping {key} makes equal cells: row {row} sets it itself or does not use it; see --rows"
                        )


def distribution(override: Override) -> BaseDistribution:
    """`x,y,z`, `range(a,b)`, `interval(a,b)`, `int(interval(a,b))`; on a logarithmic scale `tag(log,interval(a,b))`.

    Raises:
        UserError: an unknown tag, an empty range or interval, or a logarithmic scale of what is no interval above 0.
    """
    value, text = override.value(), override.input_line
    tags: set[str] = getattr(value, "tags", set())
    for tag in tags - {"log"}:
        raise UserError(f"{text}: unknown tag '{tag}'{nearest(tag, ['log'])}")
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not -math.inf < low < high < math.inf:
            raise UserError(f"{text}: an interval goes from a number to a larger one")
        if tags and low <= 0:
            raise UserError(f"{text}: an interval on a logarithmic scale starts above 0")
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=bool(tags))
        return FloatDistribution(low, high, log=bool(tags))
    if tags:
        raise UserError(f"{text}: only an interval has a logarithmic scale, such as tag(log,interval(0.001,0.1))")
    if isinstance(value, RangeSweep):
        numbers = sorted(value.range())
        if not numbers:
            raise UserError(f"{text}: the range is empty")
        step = abs(value.step)
        if all(isinstance(number, int) for number in numbers):
            return IntDistribution(numbers[0], numbers[-1], step=int(step))
        return FloatDistribution(numbers[0], numbers[-1], step=step)
    return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))


def _two(found: BaseDistribution) -> tuple[Any, Any]:
    """Two values of a distribution, different where it has two; of an interval none that looks like a whole number."""
    if isinstance(found, CategoricalDistribution):
        return found.choices[0], found.choices[-1]
    assert isinstance(found, IntDistribution | FloatDistribution)
    if isinstance(found, FloatDistribution) and found.step is None:
        width = found.high - found.low
        return found.low + width / math.e, found.low + 2 * width / math.e
    return found.low, found.high


def _draw(trial: optuna.Trial, keys: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A value for each key; what a killed command has drawn already stays."""
    values: dict[str, Any] = {}
    for key, found in keys.items():
        if isinstance(found, CategoricalDistribution):
            values[key] = trial.suggest_categorical(key, found.choices)
        elif isinstance(found, IntDistribution):
            values[key] = trial.suggest_int(key, found.low, found.high, step=found.step, log=found.log)
        elif isinstance(found, FloatDistribution):
            values[key] = trial.suggest_float(key, found.low, found.high, step=found.step, log=found.log)
    return values


class _JournalLock(BaseJournalFileLock):
    """A kernel lock: unlike Optuna's own, a killed process does not hold it; its half-written line is cut off."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_suffix(".journal.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        with open(self._journal, "rb+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def storage(journal: Path) -> optuna.storages.JournalStorage:
    """Optuna's storage in a plain file of JSON lines."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.touch()
    return optuna.storages.JournalStorage(JournalFileBackend(str(journal), _JournalLock(journal)))


@dataclass(frozen=True)
class Study:
    """The trials of one row and column."""

    row: str
    column: str
    space: Space
    search: Search
    journal: optuna.Study

    @classmethod
    def load(
        cls, space: Space, search: Search, base: Table, condition: tuple[str, str], storage: optuna.storages.BaseStorage
    ) -> "Study":
        """The study of a condition; other code or other fixed settings are another study."""
        name = f"{'/'.join(condition)} {base.cell(*condition, VALIDATION_SEED).key}"
        found = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize" if base.selection.better == "higher" else "minimize",
            pruner=optuna.pruners.MedianPruner() if search.prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        return cls(*condition, space, search, found)

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.journal.get_trials(deepcopy=False)

    def ask(self) -> "Trial | None":
        """Draw the next trial; None when there are as many as wanted. The caller holds the lock of the search.

        Trial number n is drawn with a seed of its own, so that it does not matter which command draws it, nor whether
        the code changed since.
        """
        number = len(self.trials)
        if number >= self.search.trials:
            return None
        seed = int(digest([self.row, self.column, number]), 16) % 2**32
        self.journal.sampler = SAMPLERS[self.search.sampler](seed)
        return self._taken(self.journal.ask())

    def open(self, known: Container[tuple[str, int]] = ()) -> list["Trial"]:
        """Trials that have not ended, or whose cells failed, but those that are `known` by name."""
        left = [trial for trial in self.trials if not trial.state.is_finished()]
        wanted = [trial._trial_id for trial in left if (self.journal.study_name, trial.number) not in known]
        return [self._taken(optuna.Trial(self.journal, number)) for number in wanted]

    def _taken(self, asked: optuna.Trial) -> "Trial":
        values = _draw(asked, self.space.keys)
        table = self.space.table(values)
        cells = [table.cell(self.row, self.column, VALIDATION_SEED + seed) for seed in range(self.search.seeds)]
        keys = [cell.key for cell in cells]
        if asked.user_attrs.get("cells") != keys:
            asked.set_user_attr("cells", keys)
        return Trial(self, asked, table, values, {table.store.record(cell.key): cell for cell in cells})

    def best(self) -> optuna.trial.FrozenTrial | None:
        """The complete trial with the best value, the earliest of equals; a pruned one is never chosen."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        sign = 1 if self.journal.direction == optuna.study.StudyDirection.MINIMIZE else -1
        return min(done, key=lambda trial: (sign * trial.values[0], trial.number), default=None)


@dataclass
class Trial:
    """A trial that has not ended, and its cells, one a seed."""

    study: Study
    asked: optuna.Trial
    table: Table
    values: Values
    cells: dict[Record, Cell]
    given_up: bool = field(default=False, init=False)

    @property
    def name(self) -> tuple[str, int]:
        return self.study.journal.study_name, self.asked.number

    @property
    def label(self) -> str:
        return " ".join((f"trial {self.asked.number} ({self.study.row} · {self.study.column}):", *self.overrides))

    @property
    def overrides(self) -> tuple[str, ...]:
        return self.study.space.overrides(self.values)

    def pruned(self, record: Record) -> bool:
        """Whether this study gave the cell up; another study's judgement is not ours."""
        status = record.status()
        return status["state"] == "pruned" and status.get("by") == self.study.journal.study_name

    def look(self) -> None:
        """Hand the curve so far to the pruner, and let the cells know when it has seen enough.

        The curve is the mean over seeds, at the steps that all of them have reached.
        """
        metric = self.table.selection.metric
        curves = [record.curves().get(metric, {}) for record in self.cells]
        seen = self.study.journal.get_trials(deepcopy=False)[self.asked.number]
        if seen.state.is_finished():
            return
        with suppress(UpdateFinishedTrialError):  # another command has ended it
            for step in sorted(set.intersection(*map(set, curves)) - set(seen.intermediate_values)):
                self.asked.report(mean(found[step] for found in curves), step)
                self.given_up = self.given_up or self.asked.should_prune()
        if self.given_up:
            for record in self.cells:
                if not record.done and not (record.folder / PRUNE).exists() and not self.pruned(record):
                    write_atomically(record.folder / PRUNE, f"{self.study.journal.study_name}\n")

    def settle(self) -> TrialState:
        """Tell Optuna what became of the trial, from its cells, none of which runs any more.

        Raises:
            UserError: the cells do not report the metric to select on.
        """
        self.look()
        state, value = TrialState.FAIL, None
        if all(record.done for record in self.cells):
            state, value = TrialState.COMPLETE, mean(selected(self.table, record) for record in self.cells)
        elif all(record.done or self.pruned(record) for record in self.cells):
            state = TrialState.PRUNED
        if state != TrialState.FAIL:  # a failed one stays open
            with suppress(UpdateFinishedTrialError):  # another command was faster, with the same cells
                self.study.journal.tell(self.asked.number, value, state, skip_if_finished=True)
        return state


def selected(table: Table, record: Record) -> float:
    """The validation metric of a finished cell.

    Raises:
        UserError: the cell does not report it.
    """
    metrics = record.result()["metrics"]
    if table.selection.metric not in metrics:
        known = nearest(table.selection.metric, metrics)
        raise UserError(f"no cell reports the validation metric '{table.selection.metric}'{known}")
    return float(metrics[table.selection.metric])


def seconds(records: Iterable[Record]) -> float:
    """Computing time that went into these cells, as far as the last attempt of each tells."""
    return float(sum((r.result() if r.done else r.status()).get("wall_seconds", 0.0) for r in records))
