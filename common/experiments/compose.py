"""From names and overrides to cells: Hydra composes a table once, here, and everything is checked here.

configs/table/<paper>/<table>.yaml  <- <table>_<scale>.yaml  <- overrides
A metric that is null there is none of that scale's.
settings of a cell = dataclass defaults <- settings <- columns.<c>.settings <- rows.<r>.settings
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.experiments import catalogue
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT, code_files, digest
from common.experiments.records import Cell, Store
from common.experiments.settings import explain, known_keys, merge, open_schema
from common.experiments.tracking import check_uri, default_uri

CONFIGS = ROOT / "configs"


# The schema of a composed config. Not frozen: OmegaConf makes entries of frozen dataclasses read-only.


@dataclass
class Metric:
    """A shown figure: a key of `Result.metrics`, its unit, which direction is better (`higher`, `lower`), and the
    interval over seeds: Student's `t`, or `bootstrap` for a figure whose spread is skewed. Metrics of one unit with the
    same `panel`, its title, share a plot."""

    label: str
    unit: str = "fraction"
    better: str = "higher"
    interval: str = "t"
    panel: str = ""


@dataclass
class Condition:
    """A row (method, ablation, control) or a column (data set): its label, its own settings, and what its cells need
    other than the table's (all of `Resources` but `cpus`). Where each column stands `at` a number above 0, plots are
    curves over it."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    at: float | None = None


@dataclass
class Resources:
    """What one cell needs.

    Attributes:
        cpus: threads of the cell, and of each of its tasks.
        nodes: machines; more than one needs a cluster.
        tasks: ranks in all that train together (`common.experiments.ranks`), on a cluster a task of SLURM each.
        gpus: of each node.
        memory_gb: of each node.
        minutes: an expectation until cells are recorded.
    """

    cpus: int = 1
    nodes: int = 1
    tasks: int = 1
    gpus: int = 0
    memory_gb: float = 2
    minutes: float = 2


@dataclass
class Needs:
    """Names of data sets and model checkpoints that must be at hand."""

    data: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


DATA = {  # what a sweep may select on: not the items that tables are tested on, as far as the data allow
    "own": "validation items beside the test",  # which every cell measures; of a metric that the table does not report
    "split": "the validation split",  # cells of sweeps are tested on it (`Context.validation`)
    "draw": "items drawn anew, many of which tables may be tested on",  # nothing is kept apart for validation
}


@dataclass
class Selection:
    """The metric that a sweep selects on, its unit, which direction is better, and of which data it is (`DATA`)."""

    metric: str = ""
    unit: str = "fraction"
    better: str = "higher"
    data: str = "own"


@dataclass
class Paths:
    """Folders; relative ones start at the repository (runs, reports) or where the user stands (data)."""

    runs: str
    reports: str
    data: str | None = None


@dataclass
class Tracking:
    """Where MLflow mirrors the record: null for a local file, a URI, or `off`."""

    uri: str | None = None


@dataclass
class Launching:
    """Where cells run: `local`, `slurm`, or `submitit` (its local executor). The rest is for clusters.

    Attributes:
        workers: cells at a time; null: as many as fit (local), as the site lets start (slurm).
        container: image for `srun --container-image`; mounts: further `SOURCE:TARGET` folders in it.
        python: interpreter on the compute nodes; null: the one that submits.
        setup: shell lines before a cell starts, such as `module load cuda`.
        options: further options of sbatch, such as `--mail-type=END`.
        slack: time limit over expected minutes; at least `min_minutes`, at most `max_minutes` (cells with
            checkpoints are requeued at the limit and go on).
        signal_seconds: how long before the limit, or before a preempted job is killed, cells hear of it.
        array_size: most cells in one job array (the site's MaxArraySize).
        retries: how often a cell that was lost with its node or job is submitted again.
    """

    name: str
    workers: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    container: str | None = None
    mounts: list[str] = field(default_factory=list)
    python: str | None = None
    setup: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    slack: float = 2.0
    min_minutes: int = 10
    max_minutes: int | None = None
    signal_seconds: int = 90
    array_size: int = 1000
    retries: int = 3


@dataclass
class Config:
    """Everything that the YAML files and the overrides may say."""

    paper: str
    table: str
    scale: str
    title: str
    metrics: dict[str, Metric]
    columns: dict[str, Condition]
    rows: dict[str, Condition]
    settings: dict[str, Any]
    paths: Paths
    tracking: Tracking
    launcher: Launching
    seeds: int = 3
    selection: Selection = field(default_factory=Selection)
    resources: Resources = field(default_factory=Resources)
    needs: Needs = field(default_factory=Needs)
    row: str | None = None
    column: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Table:
    """One table at one scale, composed and checked.

    Attributes:
        settings: base values, typed by the paper's `Settings`, before columns and rows.
        tracking_uri: where MLflow mirrors the record; None for nowhere.
        overrides: the user's overrides that change the science; they make this a variant of the table.
    """

    paper: str
    table: str
    scale: str
    title: str
    metrics: dict[str, Metric]
    columns: dict[str, Condition]
    rows: dict[str, Condition]
    seeds: int
    selection: Selection
    resources: Resources
    needs: Needs
    settings: DictConfig
    overrides: tuple[str, ...]
    runs: Path
    reports: Path
    data: Path | None
    tracking_uri: str | None
    launcher: Launching

    @property
    def name(self) -> str:
        """File name of the table's manifest and report; a variant carries a hash of its overrides."""
        variant = f"+{digest(sorted(self.overrides), 6)}" if self.overrides else ""
        return f"{self.table}.{self.scale}{variant}"

    @property
    def store(self) -> Store:
        return Store(self.runs, self.paper)

    @cached_property
    def code(self) -> dict[str, str]:
        """File -> hash of the code that a cell can reach."""
        return code_files(f"projects.{self.paper}.run")

    def settings_of(self, row: str, column: str) -> DictConfig:
        """Settings of a row and a column; raises UserError for keys that the paper does not know."""
        settings = merge(self.settings, self.columns[column].settings, f"columns.{column}")
        return merge(settings, self.rows[row].settings, f"rows.{row}")

    def resources_of(self, row: str, column: str) -> dict[str, float]:
        """What a cell of a row and a column needs (see `Resources`)."""
        return asdict(self.resources) | self.columns[column].resources | self.rows[row].resources

    def most(self, need: str) -> float:
        """The most of one of `Resources` that any cell needs."""
        return max(self.resources_of(row, column)[need] for row in self.rows for column in self.columns)

    def cell(self, row: str, column: str, seed: int) -> Cell:
        """The cell of a row, a column and a seed; raises UserError for keys that the paper does not know."""
        values = OmegaConf.to_container(self.settings_of(row, column), resolve=True)
        assert isinstance(values, dict)
        resources = self.resources_of(row, column)
        several = {"tasks": resources["tasks"]} if resources["tasks"] > 1 else {}
        hashed = {"paper": self.paper, "settings": values, "seed": seed, "cpus": self.resources.cpus, **several}
        plain = {str(key): value for key, value in values.items()}
        code_hash = digest(self.code, 8)
        return Cell(
            self.paper,
            self.table,
            self.scale,
            row,
            column,
            seed,
            plain,
            resources,
            digest(hashed),
            code_hash,
            self.overrides,
        )

    def cells(self, rows: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> list[Cell]:
        """Cells in launch order: column by column, its rows in turn, seeds fastest. Cells of one row and seed share
        most (a trained policy, an edited model), so that they are farthest apart: workers build different pieces side
        by side instead of waiting for one.

        Raises:
            UserError: keys that the paper does not know, or values that it refuses.
        """
        chosen = range(self.seeds) if seeds is None else seeds
        names = list(self.rows) if rows is None else rows
        for row in names:
            for column in self.columns:
                OmegaConf.to_object(self.settings_of(row, column))  # the paper's own checks
        return [self.cell(row, column, seed) for column in self.columns for row in names for seed in chosen]

    def check_rows(self, rows: Sequence[str]) -> None:
        """UserError for a row that the table lacks."""
        for row in rows:
            if row not in self.rows:
                raise UserError(f"unknown row '{row}' in {self.paper}/{self.table}{nearest(row.lower(), self.rows)}")


def split_name(name: str) -> tuple[str, str]:
    """`paper/table` -> its two parts, both known.

    Raises:
        UserError: an unknown paper or table, or no table.
    """
    papers = catalogue.implemented()
    paper, _, table = name.partition("/")
    if paper not in papers:
        if paper in catalogue.load():
            raise UserError(f"paper '{paper}' is in the catalogue but not implemented yet; see `repro list`")
        raise UserError(f"unknown paper '{paper}'{nearest(paper.lower(), papers)}")
    tables = catalogue.tables(paper)
    if not table:
        raise UserError(f"name a table: {', '.join(f'{paper}/{known}' for known in tables)}")
    if table not in tables:
        raise UserError(f"unknown table '{table}' of {paper}{nearest(table, tables)}")
    return paper, table


def compose_table(name: str, scale: str = "tiny", overrides: Sequence[str] = ()) -> Table:
    """Compose `paper/table` at a scale with overrides in Hydra's grammar.

    Raises:
        UserError: an unknown name, key or choice, or a value of the wrong type; one line.
    """
    paper, table = split_name(name)
    scales = catalogue.tables(paper)[table]
    if scale not in scales:
        raise UserError(f"{name} has no scale '{scale}'{nearest(scale, scales)}")
    config = _compose(paper, f"{paper}/{table}_{scale}", overrides)
    return _table(config, overrides)


def from_config(config: DictConfig) -> Table:
    """The table of a config that Hydra itself composed (`python -m projects.<paper> …`)."""
    return _table(config, ())


def register_schema(paper: str) -> None:
    """Let Hydra type-check `settings` by the paper's dataclass: config group `schema`, name `paper`."""
    ConfigStore.instance().store(group="schema", name=paper, node={"settings": open_schema(paper)}, package="_global_")


def _compose(paper: str, table: str, overrides: Sequence[str]) -> DictConfig:
    """Hydra's composition; a mistake in an override or in the table's own files becomes one line."""
    register_schema(paper)
    base = [f"schema={paper}", f"table={table}"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            known = compose("repro", overrides=base)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"configs/table/{table}.yaml: {_one_line(error.__cause__ or error)}") from error
        if not overrides:
            return known
        try:
            for override in overrides:
                if not _override_key(override):
                    raise UserError(f"'{override}' names no key; overrides read KEY=VALUE")
                if _override_key(override) in FIXED:
                    raise UserError(f"{override}: name the table and its scale by `repro table PAPER/TABLE --scale …`")
            return compose("repro", overrides=[*base, *overrides])
        except (HydraException, OmegaConfBaseException) as error:
            try:
                chosen = [override for override in overrides if _override_key(override) in ENGINE]
                known = compose("repro", overrides=[*base, *chosen])  # the keys of a launcher come with its file
            except HydraException:
                pass  # the overrides themselves do not parse: their error is told below
            raise UserError(_composition_error(error, known)) from error


def _composition_error(error: Exception, known: DictConfig) -> str:
    """Hydra's complaint about an override in one line, with the nearest valid key."""
    cause = error.__cause__
    text = str(error).splitlines()[0]
    if text.startswith("Could not override"):
        key = text.split("'")[1]
        place = re.match(r"(rows|columns)\.([^.]+)", key)
        if place and place[2] not in known[place[1]]:
            return f"unknown key '{key}': unknown {place[1][:-1]} '{place[2]}'{nearest(place[2], known[place[1]])}"
        choices = known_keys(known)
        if place:  # a setting that the table's own files do not set there
            choices += [f"+{place[1]}.{place[2]}.settings.{setting}" for setting in known_keys(known.settings)]
        meant = [f"settings.{key}"] if f"settings.{key}" in choices else choices  # before a row or metric of that name
        ends = [choice for choice in meant if re.fullmatch(rf"settings\..*\.{re.escape(key)}", choice)]
        if len(ends) > 1:
            return f"unknown key '{key}'; did you mean {' or '.join(map(repr, ends))}?"
        return f"unknown key '{key}'{nearest(key, meant)}"
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause, known, text.removeprefix("Error merging "))
    if "Could not find" in text:
        name = text.split("Could not find ")[1].strip("'")
        return f"no config '{name}'{nearest(name.split('/')[-1], _choices(str(error)))}"
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    """A library's message without its line breaks, its links and its search paths."""
    return " ".join(str(error).split("See https")[0].split("Config search path")[0].split())


def _choices(message: str) -> list[str]:
    """The options that Hydra lists, one per tab-indented line, in a missing-config message."""
    return [line.strip() for line in message.splitlines() if line.startswith("\t") and "provider=" not in line]


def _kept(metrics: Any) -> Any:
    """Metrics without those that a scale struck out with null, because no cell of it reports them."""
    return {k: metric for k, metric in metrics.items() if metric is not None} if isinstance(metrics, dict) else metrics


def _table(composed: DictConfig, overrides: Sequence[str]) -> Table:
    """Check a composed config against `Config` and the paper's `Settings`."""
    composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in ("hydra", "schema")])
    where = f"configs/table/{composed.get('paper')}/{composed.get('table')}"
    schema: DictConfig = OmegaConf.structured(Config)
    try:
        values = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(values, dict)
        values["metrics"] = _kept(values.get("metrics"))
        config: Any = OmegaConf.to_object(OmegaConf.merge(schema, values))
    except OmegaConfBaseException as error:
        raise UserError(explain(error, schema, where)) from error
    _check_values(config, where)
    settings = merge(open_schema(config.paper), config.settings, f"{config.paper} settings")
    runs = folder(config.paths.runs, "runs")
    uri = config.tracking.uri
    table = Table(
        **{part: getattr(config, part) for part in _SHARED},
        settings=settings,
        overrides=tuple(override for override in overrides if not _engine(_override_key(override))),
        runs=runs,
        reports=folder(config.paths.reports, "reports"),
        data=Path(config.paths.data) if config.paths.data else None,
        tracking_uri=None if uri == "off" else check_uri(uri or default_uri(runs)),
        launcher=config.launcher,
    )
    _check_effect(table)
    return table


FIXED = {"schema", "table", "scale", "paper", "row", "column", "seed"}  # said by the command line, not by overrides
ENGINE = ("paths", "tracking", "launcher")  # config groups that say nothing about the science
OWN_RESOURCES = {"nodes", "tasks", "gpus", "memory_gb", "minutes"}  # of a row or column; all cells have the same cpus
_SHARED = (
    "paper", "table", "scale", "title", "metrics", "columns", "rows", "seeds", "selection", "resources", "needs",
)  # fmt: skip


def _check_values(config: Config, where: str) -> None:
    """What types alone do not say: choices and ranges."""
    for part in ("rows", "columns", "metrics"):
        if not getattr(config, part):
            raise UserError(f"{where}: '{part}' is empty")
    directions = {f"metrics.{name}": metric.better for name, metric in config.metrics.items()}
    for name, better in {**directions, "selection": config.selection.better}.items():
        if better not in ("higher", "lower"):
            raise UserError(f"{where}: {name}.better: unknown '{better}'{nearest(better, ('higher', 'lower'))}")
    if config.selection.data not in DATA:
        raise UserError(
            f"{where}: selection.data: unknown '{config.selection.data}'{nearest(config.selection.data, DATA)}"
        )
    for name, metric in config.metrics.items():
        if metric.interval not in ("t", "bootstrap"):
            raise UserError(f"{where}: metrics.{name}.interval: '{metric.interval}' is neither 't' nor 'bootstrap'")
    for option in config.launcher.options:
        if not option.startswith("--"):
            raise UserError(f"launcher.options: '{option}' is no option of sbatch; write --NAME or --NAME=VALUE")
    for part, conditions in (("rows", config.rows), ("columns", config.columns)):
        for name, condition in conditions.items():
            for key in condition.resources.keys() - OWN_RESOURCES:
                raise UserError(f"{where}: {part}.{name}.resources: unknown '{key}'{nearest(key, OWN_RESOURCES)}")
            _check_tasks(asdict(config.resources) | condition.resources, f"{where}: {part}.{name}.resources")
    counts = {
        "seeds": config.seeds,
        "resources.cpus": config.resources.cpus,
        "launcher.workers": config.launcher.workers,
        "launcher.min_minutes": config.launcher.min_minutes,
        "launcher.max_minutes": config.launcher.max_minutes,
        "launcher.array_size": config.launcher.array_size,
    }
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{where}: {name} must be a whole number of at least 1, not {value}")


def _check_tasks(resources: Mapping[str, float], where: str) -> None:
    """Tasks are whole, and as many on each node."""
    nodes, tasks = resources["nodes"], resources["tasks"]
    if nodes < 1 or tasks < 1 or nodes % 1 or tasks % nodes:
        raise UserError(f"{where}: {tasks:g} tasks cannot be shared evenly by {nodes:g} nodes")


def folder(path: str, default: str) -> Path:
    """Where runs or reports lie: a path from the repository's root on; empty means the default there."""
    return ROOT / (path or default)


def _engine(key: str) -> bool:
    """Whether a key says where and how cells run, and nothing that can change their figures."""
    kind, _, rest = key.partition(".")
    return kind in ENGINE or (kind == "resources" and rest in OWN_RESOURCES - {"tasks"})


def _override_key(override: str) -> str:
    """The dotted key that an override in Hydra's grammar sets."""
    return str(parse_override(override).key_or_group)


def parse_override(override: str) -> Override:
    """An override in Hydra's grammar.

    Raises:
        UserError: it has no value, or one that cannot be read.
    """
    if "=" not in override and not override.startswith("~"):
        raise UserError(f"'{override}' has no value; overrides read KEY=VALUE")
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException as error:
        forms = '0.1, word, [1,2], {a: 1}, "a text"; those of sweeps 1,2 or range(1,4) or interval(0,1)'
        raise UserError(f"cannot read '{override}'; values read {forms}") from error


def _check_effect(table: Table) -> None:
    """An override of `settings` that every row or column sets itself would change nothing: say so."""
    for override in table.overrides:
        key = _override_key(override)
        if not key.startswith("settings."):
            continue
        name = key.removeprefix("settings.")
        for kind, conditions in (("rows", table.rows), ("columns", table.columns)):
            setters = [row for row, condition in conditions.items() if _sets(condition.settings, name.split("."))]
            if len(setters) == len(conditions):
                raise UserError(
                    f"{override} has no effect: every entry of {kind} sets {name} itself; "
                    f"write {kind}.{setters[0]}.settings.{name}=…"
                )


def _sets(settings: Mapping[str, Any], path: Sequence[str]) -> bool:
    value: Any = settings
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True
