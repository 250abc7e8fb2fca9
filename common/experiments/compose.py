"""From names and overrides to cells: Hydra composes a table once, here, and everything is checked here.

configs/table/<paper>/<table>.yaml  <- <table>_<scale>.yaml  <- overrides
settings of a cell = dataclass defaults <- settings <- columns.<c>.settings <- rows.<r>.settings
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.experiments import catalogue
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT, code_files, digest
from common.experiments.records import Cell, Store
from common.experiments.settings import explain, flat_keys, merge, open_schema
from common.experiments.tracking import check_uri, default_uri

CONFIGS = ROOT / "configs"
ENGINE_KEYS = {"paths", "tracking", "launcher", "row", "column", "seed", "hydra"}  # never part of a table


@dataclass(frozen=True)
class Metric:
    """A shown figure: a key of `Result.metrics`, its unit and which direction is better (`higher`, `lower`)."""

    label: str
    unit: str = "fraction"
    better: str = "higher"


@dataclass(frozen=True)
class Condition:
    """A row (method, ablation, control) or a column (data set): its label and its own settings."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resources:
    """What one cell needs. `minutes` is an expectation until cells are recorded; `cpus` are its threads."""

    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 2
    minutes: float = 2


@dataclass(frozen=True)
class Needs:
    """Names of data sets and model checkpoints that must be at hand."""

    data: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """The validation metric that a sweep selects on."""

    metric: str = ""
    better: str = "higher"


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
    launcher: str
    workers: int | None

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

    def cell(self, row: str, column: str, seed: int) -> Cell:
        """The cell of a row, a column and a seed; raises UserError for settings the paper does not know."""
        settings = merge(self.settings, self.columns[column].settings, f"columns.{column}")
        settings = merge(settings, self.rows[row].settings, f"rows.{row}")
        values = OmegaConf.to_container(settings, resolve=True)
        assert isinstance(values, dict)
        resources = {item.name: getattr(self.resources, item.name) for item in fields(Resources)}
        hashed = {"paper": self.paper, "settings": values, "seed": seed, "cpus": self.resources.cpus}
        plain = {str(key): value for key, value in values.items()}
        code_hash = digest(self.code, 8)
        return Cell(self.paper, self.table, self.scale, row, column, seed, plain, resources, digest(hashed), code_hash)

    def cells(self, rows: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> list[Cell]:
        """Cells in launch order: seeds vary fastest, so that workers build the shared pieces of different
        seeds side by side instead of waiting for one."""
        chosen = range(self.seeds) if seeds is None else seeds
        names = list(self.rows) if rows is None else rows
        return [self.cell(row, column, seed) for row in names for column in self.columns for seed in chosen]

    def check_rows(self, rows: Sequence[str]) -> None:
        for row in rows:
            if row not in self.rows:
                raise UserError(f"unknown row '{row}' in {self.paper}/{self.table}{nearest(row, self.rows)}")


def split_name(name: str) -> tuple[str, str]:
    """`paper/table` -> its two parts, both known."""
    papers = catalogue.implemented()
    paper, _, table = name.partition("/")
    if paper not in papers:
        if paper in catalogue.load():
            raise UserError(f"paper '{paper}' is in the catalogue but not implemented yet; see `repro list`")
        raise UserError(f"unknown paper '{paper}'{nearest(paper, papers)}")
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


@contextmanager
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def _compose(paper: str, table: str, overrides: Sequence[str]) -> DictConfig:
    register_schema(paper)
    base = [f"schema={paper}", f"table={table}"]
    with _hydra():
        try:
            return compose("repro", overrides=[*base, *overrides])
        except (HydraException, OmegaConfBaseException) as error:
            known = compose("repro", overrides=base)  # fails here if the table's own files are wrong
            raise UserError(_composition_error(error, known)) from error


def _composition_error(error: Exception, known: DictConfig) -> str:
    """Hydra's complaint about an override in one line, with the nearest valid key."""
    cause = error.__cause__
    text = str(error).splitlines()[0]
    if text.startswith("Could not override"):
        key = text.split("'")[1]
        return f"unknown key '{key}'{nearest(key, flat_keys(known))}"
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause, known, text.removeprefix("Error merging "))
    if "Could not find" in text:
        return f"no config {text.split('Could not find ')[1]}; choices: {', '.join(_choices(str(error)))}"
    return " ".join(str(error).split("See https")[0].split())


def _choices(message: str) -> list[str]:
    """The options that Hydra lists, one per tab-indented line, in a missing-config message."""
    return [line.strip() for line in message.splitlines() if line.startswith("\t") and "provider=" not in line]


def _table(config: DictConfig, overrides: Sequence[str]) -> Table:
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    where = f"configs/table/{values.get('paper')}/{values.get('table')}"
    known = {"paper", "table", "scale", "title", "seeds", "settings", *_PARTS} | ENGINE_KEYS
    for key in map(str, values):
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{nearest(key, known)}")
    for key in ("paper", "table", "title", "rows", "metrics"):
        if not values.get(key):
            raise UserError(f"{where}: '{key}' is missing")
    parts = {key: _part(kind, values.get(key, {}), f"{where}: {key}") for key, kind in _PARTS.items()}
    given = values["settings"]  # checked again: `+settings.x=1` passes Hydra's own check
    settings = merge(open_schema(values["paper"]), given, f"{values['paper']} settings")
    runs = Path(values["paths"]["runs"])
    runs = runs if runs.is_absolute() else ROOT / runs
    reports = Path(values["paths"]["reports"])
    data = values["paths"]["data"]
    uri = values["tracking"]["uri"]
    science = tuple(override for override in overrides if _override_key(override).split(".")[0] not in ENGINE_KEYS)
    table = Table(
        **{key: values[key] for key in ("paper", "table", "scale", "title")},
        **parts,
        seeds=_count(values.get("seeds", 3), f"{where}: seeds"),
        settings=settings,
        overrides=science,
        runs=runs,
        reports=reports if reports.is_absolute() else ROOT / reports,
        data=Path(data) if data else None,
        tracking_uri=None if uri == "off" else check_uri(uri or default_uri(runs)),
        launcher=values["launcher"]["name"],
        workers=values["launcher"]["workers"],
    )
    _check_effect(table)
    return table


_PARTS: dict[str, Any] = {
    "metrics": dict[str, Metric],
    "columns": dict[str, Condition],
    "rows": dict[str, Condition],
    "selection": Selection,
    "resources": Resources,
    "needs": Needs,
}


def _part(kind: Any, value: Any, where: str) -> Any:
    """A typed part of a table config; mappings are read entry by entry."""
    cls = getattr(kind, "__args__", (None, kind))[1]
    if cls is kind:
        return OmegaConf.to_object(merge(_open(cls), value or {}, where))
    return {str(name): _part(cls, entry, f"{where}.{name}") for name, entry in (value or {}).items()}


def _open(cls: type[Any]) -> DictConfig:
    schema = OmegaConf.structured(cls)
    OmegaConf.set_readonly(schema, False)
    assert isinstance(schema, DictConfig)
    return schema


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where} must be a whole number of at least 1, not {value!r}")
    return value


def _override_key(override: str) -> str:
    return OverridesParser.create().parse_override(override).key_or_group


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
