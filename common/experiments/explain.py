"""`repro explain CELL`: everything that made one figure."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from common.experiments.compose import CONFIGS, Table, compose_table
from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import ROOT
from common.experiments.listing import runs_folder
from common.experiments.records import Cell, Record
from common.experiments.report import expected_of
from common.experiments.settings import flatten


@dataclass(frozen=True)
class Source:
    """Where a value was set: `file:line`, and the comment on that line, which names its place in the paper."""

    place: str
    comment: str


def show(name: str, scale: str, overrides: Sequence[str]) -> None:
    """Print the state of a cell and where each of its values comes from."""
    table, cell = find(name, scale, overrides)
    record = table.store.record(cell.key)
    state = record.state() if record.folder.exists() else "pending"
    click.secho(f"{table.paper}/{table.table} at {table.scale} scale · {cell.label}", bold=True)
    click.echo(f"row:      {table.rows[cell.row].label}")
    click.echo(f"column:   {table.columns[cell.column].label}")
    click.echo(f"state:    {state}{_stale_note(table, cell, state)}")
    click.echo(f"folder:   {os.path.relpath(record.folder)}")
    click.echo(
        f"key:      {cell.config_hash} (settings, seed, threads) - {cell.code_hash} (code: {len(table.code)} files)"
    )
    place = f"{table.paper}/{table.table} --scale {table.scale} --rows {cell.row} --seeds {cell.seed + 1}"
    click.echo(" ".join([f"command:  repro table {place}", *map(shlex.quote, cell.overrides)]))
    if state == "done":
        _show_result(record)
    elif state == "failed":
        click.echo(f"error:    {record.status().get('error')}")
    click.secho("settings", bold=True)
    sources = value_sources(table, cell)
    shown = {key: f"{key} = {value!r}" for key, value in flatten(cell.settings).items()}
    width = min(max(map(len, shown.values()), default=0), 48)
    for key, text in shown.items():
        source = sources[key]
        comment = f"  # {source.comment}" if source.comment else ""
        click.echo(f"  {text:<{width}}  {source.place}{comment}")
    expected = expected_of(table)
    figures = [f for f in expected.figures if cell.row in (f.row, f.over) and cell.column == f.column]
    click.secho("published figures of this row", bold=True)
    for figure in figures:
        over = f" over {figure.over}" if figure.over else ""
        click.echo(f"  {figure.metric}{over}: {figure.value:g}  ({figure.where}; {figure.provenance})")
    if not figures:
        click.echo("  none with known provenance")
    click.secho("claims of this table", bold=True)
    for claim in expected.claims:
        click.echo(f"  {claim.id}: {claim.text}  ({claim.where}; {claim.provenance})")


def _show_result(record: Record) -> None:
    result = record.result()
    click.echo(f"commit:   {result['commit']}{' with uncommitted changes' if result['dirty'] else ''}")
    cost = f"{result['wall_seconds']:.1f} s, peak {result['peak_mb']:.0f} MB"
    click.echo(f"run:      {cost}, {result['hardware']['cpu']}, {result['ended_at']}")
    click.echo(f"versions: {', '.join(f'{name} {version}' for name, version in result['versions'].items())}")
    click.secho("metrics", bold=True)
    for name, value in result["metrics"].items():
        click.echo(f"  {name} = {value:.6g}")


def _stale_note(table: Table, cell: Cell, state: str) -> str:
    older = table.store.stale(cell, table.store.by_config()) if state != "done" else []
    return f" (computed by older code: {older[0].folder.name})" if older else ""


def find(name: str, scale: str, overrides: Sequence[str]) -> tuple[Table, Cell]:
    """The cell behind a path-like name or a recorded key.

    Raises:
        UserError: the name means no cell, or the beginning of a key fits several.
    """
    parts = name.strip("/").split("/")
    if len(parts) == 1:
        return _by_key(parts[0])
    if len(parts) not in (4, 5):
        raise UserError(f"'{name}' names no cell; write PAPER/TABLE/ROW/SEED or PAPER/TABLE/ROW/COLUMN/SEED")
    paper, table_name, row, *column, seed = parts
    table = compose_table(f"{paper}/{table_name}", scale, overrides)
    table.check_rows([row])
    chosen = column[0] if column else next(iter(table.columns))
    if chosen not in table.columns:
        raise UserError(f"unknown column '{chosen}'{nearest(chosen, table.columns)}")
    if not seed.isdecimal():
        raise UserError(f"the seed of a cell is a whole number, not '{seed}'")
    return table, table.cell(row, chosen, int(seed))


def _by_key(key: str) -> tuple[Table, Cell]:
    """A recorded cell, from what was frozen in its folder and today's table."""
    found = sorted(path for path in runs_folder().glob("*/cells/*") if path.name.startswith(key))
    if not found:
        raise UserError(f"no recorded cell has a key starting with '{key}'; see `repro status`")
    if len(found) > 1:
        raise UserError(f"'{key}' fits {len(found)} recorded cells: {', '.join(path.name for path in found[:4])}")
    config = Record(found[0]).config
    try:
        cell = Cell(**{name: config[name] for name in Cell.__dataclass_fields__})
    except KeyError as error:
        raise UserError(f"{found[0]}: config.yaml lacks {error}; it was written by another version") from error
    table = compose_table(f"{cell.paper}/{cell.table}", cell.scale, cell.overrides)
    table.check_rows([cell.row])
    return table, cell


def value_sources(table: Table, cell: Cell) -> dict[str, Source]:
    """Dotted setting -> where its value was set; the last setter wins, as in `compose`."""
    files = _config_files(table, cell.overrides)
    parsed = OverridesParser.create().parse_overrides(list(cell.overrides))
    sources = {}
    for key in flatten(cell.settings):
        source = Source("default of Settings", "")
        for prefix in ("settings", f"columns.{cell.column}.settings", f"rows.{cell.row}.settings"):
            for file, package in files:
                source = _set_in(file, f"{prefix}.{key}".removeprefix(package)) or source
            for override in parsed:
                if _overrides(override, f"{prefix}.{key}"):
                    source = Source(str(override.input_line), "your override")
        sources[key] = source
    return sources


def _overrides(override: Override, key: str) -> bool:
    """Whether an override sets a dotted key, itself or inside a mapping that it gives."""
    name, value = override.key_or_group, override.value()
    if not f"{key}.".startswith(f"{name}."):
        return False
    for part in key.removeprefix(name).removeprefix(".").split(".") if key != name else []:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _config_files(table: Table, overrides: Sequence[str]) -> list[tuple[Path, str]]:
    """YAML files that Hydra merged, in merge order, and the prefix of the keys of each: `settings.lm.`; mostly none."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        wanted = [f"schema={table.paper}", f"table={table.paper}/{table.table}_{table.scale}", *overrides]
        defaults = loader.compute_defaults_list("repro", wanted, RunMode.RUN).defaults
    paths = [(CONFIGS / f"{default.config_path}.yaml", default.package) for default in defaults if default.config_path]
    return [(path, f"{package}." if package else "") for path, package in paths if path.exists()]


def _set_in(path: Path, name: str) -> Source | None:
    """The line of a YAML file that sets a dotted key, None when it does not."""
    text, keys = path.read_text(), name.split(".")
    node = yaml.compose(text, Loader=yaml.CSafeLoader)
    line = -1
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        match = [(name, value) for name, value in pairs if name.value == key]
        if not match:
            return None
        line, node = match[0][0].start_mark.line, match[0][1]
    _, _, comment = text.splitlines()[line].partition(" # ")
    return Source(f"{path.relative_to(ROOT)}:{line + 1}", comment.strip())
