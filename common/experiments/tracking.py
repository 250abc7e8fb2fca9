"""MLflow mirror of the record: `sync` copies finished cells from runs/ to a tracking store, never the other way.

    experiment repro/<paper>  >  parent run <table>.<scale>  >  one child run per (row, column, seed) cell

The store itself says what it already has: a run whose tag `repro.complete` equals the version of our files is
finished; anything else (killed half-way, failed and then computed again) is written anew. A sync may therefore
be killed at any moment and repeated at will. The marker `runs/<paper>/tables/<name>.synced.json` only spares a
finished table the import of MLflow (see `pending`); losing it costs time and nothing else.

MLflow is imported inside functions: its import takes longer than showing a finished table may.
"""

import json
import logging
import os
import posixpath
import re
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from common.experiments.errors import UserError, nearest
from common.experiments.fingerprint import digest
from common.experiments.records import Record, Store, read_json
from common.experiments.settings import flatten
from common.files import write_atomically

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
COMPLETE = "repro.complete"  # set last: the version of the files that a run mirrors in full
CURRENT = "repro.current"  # whether the manifest synced last names the cell; false after its code changed

REQUEST_SECONDS = 10  # a request without an answer
PATIENCE_SECONDS = 30  # a store that answers slowly: this much, and one second more for each request
LOCK_SECONDS = 120  # another exporter at work
ARTIFACT_BYTES = 1_000_000
NAME_LENGTH, VALUE_LENGTH = 250, 6000  # MLflow's limits, in characters
METRICS_PER_BATCH, PARAMS_PER_BATCH, PARAM_CHARACTERS = 1000, 100, 100_000  # the last: a request may have 1 MB

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a repeated `create` makes a second run
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # a pooled connection would outlive a deleted SQLite file
}


@dataclass(frozen=True)
class SyncOutcome:
    """What a sync did.

    Attributes:
        created: cells written to the store.
        existing: cells that were there already.
        failed: one line on what is missing there and how to catch up; None when the mirror is complete.
    """

    created: int
    existing: int
    failed: str | None = None


@dataclass(frozen=True)
class _Cell:
    """One finished cell of a table; `version` changes whenever its files do."""

    record: Record
    row: str
    column: str
    seed: int
    state: str
    version: str

    @property
    def identity(self) -> tuple[str, ...]:
        return self.row, self.column, str(self.seed), self.record.folder.name


@dataclass(frozen=True)
class _Table:
    """A manifest with its finished cells and report files; `version` covers all of them."""

    name: str
    manifest: Mapping[str, Any]
    cells: Sequence[_Cell]
    reports: Sequence[Path]
    version: str

    @property
    def identities(self) -> set[tuple[str, ...]]:
        """Of every cell that the manifest names, finished or not."""
        return {(cell["row"], cell["column"], str(cell["seed"]), cell["key"]) for cell in self.manifest["cells"]}


def default_uri(runs: Path) -> str:
    """The local store: a SQLite file in the runs folder."""
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def check_uri(uri: str) -> str:
    """The URI in full (a SQLite path made absolute).

    Raises:
        UserError: it is no URI that MLflow could answer at.
    """
    shown = _public(uri)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        raise UserError(f"tracking URI '{shown}' has no scheme; write sqlite:///runs/mlflow.db or http://host:port")
    kind = scheme.split("+")[0]
    if kind not in SCHEMES:
        raise UserError(f"tracking URI '{shown}': unknown scheme '{scheme}'{nearest(scheme, SCHEMES)}")
    if kind == "sqlite":
        path = rest.removeprefix("/").split("?")[0]
        if not rest.startswith("/") or path in ("", ":memory:") or path.endswith("/"):
            raise UserError(f"tracking URI '{shown}' names no file; write sqlite:///runs/mlflow.db")
        return f"sqlite:///{Path(path).absolute()}"
    try:
        parts = urlsplit(uri)
        valid = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # the port is no number
        valid = False
    if not valid:
        raise UserError(f"tracking URI '{shown}' names no host; write {kind}://host:port")
    return uri.rstrip("/")


def pending(manifest: Path, runs: Path, uri: str, reports: Path | None = None) -> bool:
    """Whether `sync` would have something to do, as far as files can tell; does not import MLflow.

    A server that lost its data goes unnoticed here; `sync` asks the store itself.

    Raises:
        UserError: the URI is wrong.
    """
    uri = check_uri(uri)
    try:
        table = _read_table(manifest, runs, reports)
        seen = json.loads(_marker(manifest).read_text())[_public(uri)]
        if seen["version"] != table.version:
            return True
        database = _sqlite_file(uri)
        created = seen["experiment_created"]
        return database is not None and not _has_experiment(database, _experiment_name(table), created)
    except (UserError, OSError, ValueError, KeyError, TypeError):  # unreadable files: `sync` says which
        return True


def sync(
    manifests: Sequence[Path],
    runs: Path,
    uri: str,
    reports: Path | None = None,
) -> SyncOutcome:
    """Bring a tracking store up to date with the finished cells of some tables.

    Args:
        manifests: files `runs/<paper>/tables/<name>.json`.
        runs: the runs folder.
        uri: of the tracking store (see `check_uri`).
        reports: folder of generated reports; those of a table go to its parent run.

    Raises:
        UserError: the URI is wrong. Trouble with the store or with a record never raises: see `SyncOutcome.failed`.
    """
    uri = check_uri(uri)
    tally: Counter[str] = Counter()
    problems: list[str] = []
    try:
        with _one_exporter(uri, runs), _mlflow_settings():
            client, ask = _connect(uri), _Patience()
            for path in manifests:
                try:
                    table = _read_table(path, runs, reports)
                except UserError as error:
                    problems.append(str(error))
                    continue
                name = _experiment_name(table)
                experiment, created = _experiment(client, ask, name, _artifact_location(uri, runs, table))
                unreadable = _mirror(client, ask, experiment, table, tally)
                problems += unreadable
                if not unreadable:
                    seen = {"version": table.version, "experiment_created": created}
                    _mark(path, uri, seen)
    except Exception as error:  # whatever a tracking store does, it must not fail a run whose results are safe
        reason = _reason(error)
        line = f"MLflow at {_public(uri)} did not answer ({reason}); results are safe in runs/, `repro sync` catches up"
        return SyncOutcome(tally["created"], tally["existing"], line)
    more = f" (and {len(problems) - 1} more such)" if len(problems) > 1 else ""
    return SyncOutcome(tally["created"], tally["existing"], problems[0] + more if problems else None)


# Files


def _read_table(path: Path, runs: Path, reports: Path | None) -> _Table:
    """Raises UserError when the manifest cannot be read."""
    try:
        manifest = read_json(path)
        store = Store(runs, manifest["paper"])
        finished, wanted = [], []
        for entry in manifest["cells"]:
            record = store.record(entry["key"])
            found = _finished(record)
            if found is None and record.status()["state"] == "pruned":
                continue  # nobody waits for it
            wanted.append(entry)
            if found is not None:
                finished.append(_Cell(record, entry["row"], entry["column"], entry["seed"], *found))
        manifest["cells"] = wanted
        name = path.stem
        files = _report_files(reports / manifest["paper"], name) if reports is not None else []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no table manifest; move it away and run the table again") from error
    versions = [manifest, [cell.version for cell in finished], [_report_version(file) for file in files]]
    return _Table(name, manifest, finished, files, digest(versions))


def _finished(record: Record) -> tuple[str, str] | None:
    """(state, version) of a cell that is done or failed, None for any other."""
    if record.done:
        state, file = "done", record.folder / "result.json"
    elif record.status()["state"] == "failed":
        state, file = "failed", record.folder / "status"
    else:
        return None
    return state, f"{state} {sha256(file.read_bytes()).hexdigest()[:12]}"


def _report_files(folder: Path, name: str) -> list[Path]:
    """Files called `<name>.md`, `<name>.json`, `<name>-<plot>.png` …, also in folders below."""
    mine = re.compile(re.escape(name) + r"[._-]")
    return sorted(path for path in folder.rglob("*") if path.is_file() and mine.match(path.name))


def _report_version(path: Path) -> list[str]:
    """Plots and Markdown are rendered from the JSON, which is compared without the time it was made at."""
    if path.suffix != ".json":
        return [path.name]
    report = read_json(path)
    return [path.name, digest({name: value for name, value in report.items() if name != "generated_at"})]


def _marker(manifest: Path) -> Path:
    return manifest.with_name(f"{manifest.stem}.synced.json")


def _mark(manifest: Path, uri: str, seen: Mapping[str, Any]) -> None:
    """Note in the marker that the store at `uri` has this version of the table."""
    path = _marker(manifest)
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    entries = {**(known if isinstance(known, dict) else {}), _public(uri): dict(seen)}
    write_atomically(path, json.dumps(entries, indent=1))


def _artifacts(folder: Path) -> list[tuple[Path, str]]:
    """(file, folder inside the run) of what goes along with a cell."""
    files = [(folder / name, "") for name in ("config.yaml", "result.json", "log.txt", "error.txt")]
    files += [(path, "items") for path in sorted((folder / "items").glob("*.jsonl"))]
    return [(path, where) for path, where in files if path.is_file()]


def _milliseconds(time_text: str | None) -> int:
    return int(datetime.fromisoformat(time_text).timestamp() * 1000) if time_text else 0


# What MLflow accepts


def _names(names: Iterable[str]) -> dict[str, str]:
    """MLflow's key for each of our names: forbidden characters become `_`, and clashes are numbered."""
    keys: dict[str, str] = {}
    cleaned = {name: _clean_name(name) for name in names}
    for name, key in sorted(cleaned.items(), key=lambda item: item[0] != item[1]):  # valid names keep theirs
        unique, number = key, 2
        while unique in keys.values():
            unique, number = f"{key[: NAME_LENGTH - 5]}_{number}", number + 1
        keys[name] = unique
    return keys


def _clean_name(name: str) -> str:
    key = re.sub(r"[^/\w.\- :]", "_", name)[:NAME_LENGTH]
    path_like = posixpath.normpath(key) != key or key.startswith(("/", ".."))
    return re.sub(r"[/.]", "_", key) or "_" if path_like or key == "." else key


def _value(text: object) -> str:
    """Cut to MLflow's length, without characters that a database or UTF-8 refuses."""
    clean = str(text).replace("\0", "�").encode("utf-8", "replace").decode()
    if len(clean) <= VALUE_LENGTH:
        return clean
    note = f" … ({len(clean)} characters; whole in config.yaml)"
    return clean[: VALUE_LENGTH - len(note)] + note


# The store


class _Patience:
    """Calls a tracking store, and gives up on one that does answer, but too slowly."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.calls = 0

    def __call__(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        spent = time.monotonic() - self.start
        if spent > PATIENCE_SECONDS + self.calls:
            raise TimeoutError(f"too slow: {self.calls} requests took {spent:.0f} s")
        self.calls += 1
        return function(*args, **kwargs)


def _mirror(client: "MlflowClient", ask: _Patience, experiment: str, table: _Table, tally: Counter[str]) -> list[str]:
    """Write what the store lacks of one table; returns a line for each cell whose files cannot be read."""
    parents, children = _existing(client, ask, experiment, table.name)
    parent = parents[0] if parents else _create_parent(client, ask, experiment, table)
    parent_id = parent.info.run_id
    problems: list[str] = []
    commits: set[str] = set()
    for cell in table.cells:
        twins = children.get(cell.identity, [])
        whole = next((run for run in twins if run.data.tags.get(COMPLETE) == cell.version), None)
        for run in twins:
            if run is not whole:  # half-written, or of an earlier attempt
                ask(client.delete_run, run.info.run_id)
        if whole is None:
            try:
                commits.add(_write_cell(client, ask, experiment, parent_id, table, cell))
                tally["created"] += 1
            except UserError as error:
                problems.append(str(error))
        else:
            commits.add(whole.data.tags.get("commit", ""))
            _retag(client, ask, whole, {CURRENT: "true", "mlflow.parentRunId": parent_id})
            tally["existing"] += 1
    for identity in children.keys() - table.identities:
        for run in children[identity]:
            _retag(client, ask, run, {CURRENT: "false"})
    if not problems and parent.data.tags.get(COMPLETE) != table.version:
        _write_parent(client, ask, parent_id, table, commits)
    return problems


def _existing(
    client: "MlflowClient", ask: _Patience, experiment: str, name: str
) -> tuple[list["Run"], dict[tuple[str, ...], list["Run"]]]:
    """Runs of a table: the parent (oldest first, should two machines have made one each), children by identity."""
    parents, children, token = [], defaultdict(list), None
    while True:
        wanted = f"tags.`repro.table` = '{name}'"
        page = ask(client.search_runs, [experiment], wanted, order_by=["start_time ASC"], page_token=token)
        for run in page:
            tags = run.data.tags
            if tags.get("repro.kind") == "table":
                parents.append(run)
            else:
                children[tuple(tags.get(field, "") for field in ("row", "column", "seed", "key"))].append(run)
        token = page.token
        if not token:
            return parents, children


def _create_parent(client: "MlflowClient", ask: _Patience, experiment: str, table: _Table) -> "Run":
    manifest = table.manifest
    about = {name: _value(manifest[name]) for name in ("paper", "table", "scale")}
    tags = {**about, "repro.kind": "table", "repro.table": table.name}
    return ask(client.create_run, experiment, tags=tags, run_name=table.name)


def _write_parent(client: "MlflowClient", ask: _Patience, run_id: str, table: _Table, commits: set[str]) -> None:
    """Bring the run of the table itself up to date."""
    from mlflow.entities import Param, RunTag

    manifest, states = table.manifest, Counter(cell.state for cell in table.cells)
    total = len(manifest["cells"])
    status = "RUNNING" if len(table.cells) < total else "FAILED" if states["failed"] else "FINISHED"
    params = {name: manifest[name] for name in ("paper", "table", "scale")}
    params["overrides"] = " ".join(manifest.get("overrides", []))
    tags = {
        "mlflow.note.content": manifest.get("title", table.name),
        "commit": ", ".join(sorted(commits - {""})),
        "state": {"RUNNING": "unfinished", "FAILED": "failed", "FINISHED": "done"}[status],
        "cells": total,
        "done": states["done"],
        "failed": states["failed"],
    }
    given = [Param(name, _value(value)) for name, value in params.items() if value]
    ask(client.log_batch, run_id, params=given, tags=[RunTag(name, _value(value)) for name, value in tags.items()])
    for path in table.reports:
        ask(client.log_artifact, run_id, str(path), "report")
    if status == "RUNNING":
        ask(client.update_run, run_id, status=status)
    else:
        ask(client.set_terminated, run_id, status)
    ask(client.set_tag, run_id, COMPLETE, table.version)


def _write_cell(
    client: "MlflowClient", ask: _Patience, experiment: str, parent_id: str, table: _Table, cell: _Cell
) -> str:
    """Write the child run of a cell and return the commit it was computed at; UserError for unreadable files."""
    from mlflow.entities import Param

    try:
        config, status = cell.record.config, cell.record.status()
        result = cell.record.result() if cell.state == "done" else {}
        started = _milliseconds(result.get("started_at") or status.get("started_at"))
        ended = max(started + 1, _milliseconds(result.get("ended_at") or status.get("ended_at")))
        metrics = _metrics(result, cell.record.curves(), started, ended)
        flat = flatten(config["settings"]).items()
        settings = {key: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for key, v in flat}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{cell.record.folder} cannot be read ({error}), so MLflow lacks this cell") from error

    where: dict[str, Any] = {"row": cell.row, "column": cell.column, "seed": cell.seed}
    params = {f"settings.{name}" if name in where else name: value for name, value in settings.items()} | where
    keys = _names(params)
    large = [path for path, _ in _artifacts(cell.record.folder) if path.stat().st_size > ARTIFACT_BYTES]
    tags = {
        **{name: table.manifest[name] for name in ("paper", "table", "scale")},
        **where,
        "key": cell.record.folder.name,
        "commit": config.get("commit") or "",
        "dirty": json.dumps(config.get("dirty")),
        "state": cell.state,
        "repro.kind": "cell",
        "repro.table": table.name,
        CURRENT: "true",
        "mlflow.parentRunId": parent_id,
        **({"error": status.get("error", "")} if cell.state == "failed" else {}),
        **({"repro.left_out": ", ".join(path.name for path in large)} if large else {}),
    }

    name = f"{cell.row} · {cell.column} · seed {cell.seed}"
    text_tags = {tag: _value(value) for tag, value in tags.items()}
    run = ask(client.create_run, experiment, start_time=started, tags=text_tags, run_name=_value(name)[:NAME_LENGTH])
    run_id = run.info.run_id
    given = [Param(keys[name], _value(value)) for name, value in params.items()]
    for batch in _param_batches(given):
        ask(client.log_batch, run_id, params=batch)
    for i in range(0, len(metrics), METRICS_PER_BATCH):
        ask(client.log_batch, run_id, metrics=metrics[i : i + METRICS_PER_BATCH])
    for path, folder in _artifacts(cell.record.folder):
        if path not in large:
            ask(client.log_artifact, run_id, str(path), folder or None)
    ask(client.set_terminated, run_id, "FINISHED" if cell.state == "done" else "FAILED", ended)
    ask(client.set_tag, run_id, COMPLETE, cell.version)
    return text_tags["commit"]


def _param_batches(params: Iterable["Param"]) -> Iterator[list["Param"]]:
    batch: list[Param] = []
    for param in params:
        if len(batch) == PARAMS_PER_BATCH or sum(len(each.value) for each in batch) > PARAM_CHARACTERS:
            yield batch
            batch = []
        batch.append(param)
    if batch:
        yield batch


def _metrics(
    result: Mapping[str, Any], curves: Mapping[str, Mapping[int, float]], started: int, ended: int
) -> list["Metric"]:
    """Curves over their steps, then the figures; a figure named like a curve becomes its last point."""
    from mlflow.entities import Metric

    costs = {f"cost/{name}": result.get(name) for name in ("wall_seconds", "cpu_seconds", "peak_mb")}
    tokens = {f"tokens/{name}": count for name, count in result.get("tokens", {}).items()}
    figures = {**result.get("metrics", {}), **{name: value for name, value in costs.items() if value}, **tokens}
    last = {name: max(curve) for name, curve in curves.items()}
    keys = _names([*figures, *last])
    points = [
        Metric(keys[name], value, started, step) for name, curve in curves.items() for step, value in curve.items()
    ]
    return points + [Metric(keys[name], float(value), ended, last.get(name, 0)) for name, value in figures.items()]


def _retag(client: "MlflowClient", ask: _Patience, run: "Run", tags: Mapping[str, str]) -> None:
    for name, value in tags.items():
        if run.data.tags.get(name) != value:
            ask(client.set_tag, run.info.run_id, name, value)


def _experiment_name(table: _Table) -> str:
    return f"repro/{table.manifest['paper']}"


def _experiment(client: "MlflowClient", ask: _Patience, name: str, location: str | None) -> tuple[str, int]:
    """(id, time of creation in ms) of an experiment, made or taken out of MLflow's trash if need be."""
    found = ask(client.get_experiment_by_name, name)
    if found is None:
        made = ask(client.create_experiment, name, artifact_location=location)
        found = ask(client.get_experiment, made)
    elif found.lifecycle_stage == "deleted":
        ask(client.restore_experiment, found.experiment_id)
    return found.experiment_id, int(found.creation_time or 0)


def _artifact_location(uri: str, runs: Path, table: _Table) -> str | None:
    """Beside a SQLite file, in runs/ for another database; a server has its own place (None)."""
    if uri.startswith("http"):
        return None
    database = _sqlite_file(uri)
    root = database.parent if database is not None else runs.absolute()
    return (root / "mlflow-artifacts" / str(table.manifest["paper"])).as_uri()


def _connect(uri: str) -> "MlflowClient":
    """A client of the store; a new SQLite store appears whole or, when we are killed, not at all."""
    from mlflow.tracking import MlflowClient

    if uri.startswith("http"):
        return MlflowClient(uri)
    from mlflow.store.db import utils as databases

    tries, databases.MAX_RETRY_COUNT = databases.MAX_RETRY_COUNT, 1  # as it is, a dead database costs minutes
    try:
        database = _sqlite_file(uri)
        if database is not None and not database.exists():
            for left_by_kill in database.parent.glob(".mlflow-new-*"):
                shutil.rmtree(left_by_kill)
            with tempfile.TemporaryDirectory(prefix=".mlflow-new-", dir=database.parent) as folder:
                MlflowClient(f"sqlite:///{folder}/mlflow.db")  # seconds of schema migrations
                Path(folder, "mlflow.db").replace(database)
        return MlflowClient(uri)
    finally:
        databases.MAX_RETRY_COUNT = tries


def _sqlite_file(uri: str) -> Path | None:
    """File of a checked SQLite URI, None for any other store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _has_experiment(database: Path, name: str, created: int) -> bool:
    """Whether a SQLite file holds the experiment that we saw: a file deleted and made anew has another one."""
    query = "SELECT 1 FROM experiments WHERE name = ? AND creation_time = ? AND lifecycle_stage = 'active'"
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            return connection.execute(query, (name, created)).fetchone() is not None
    except sqlite3.Error:
        return False


@contextmanager
def _one_exporter(uri: str, runs: Path) -> Iterator[None]:
    """SQLite locks up under many writers, and two exporters would write a cell twice: one at a time."""
    folder = (_sqlite_file(uri) or runs / "mlflow.db").parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "mlflow.lock", timeout=LOCK_SECONDS):
        yield


@contextmanager
def _mlflow_settings() -> Iterator[None]:
    """Short time-outs, no telemetry and no chatter; as it was before on the way out."""
    saved = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow  # noqa: F401  (sets the level of its logger, so it comes first)

            loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
            levels = [logger.level for logger in loggers]
            try:
                for logger in loggers:
                    logger.setLevel(logging.CRITICAL)
                yield
            finally:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _public(uri: str) -> str:
    """The URI without user and password, for files and messages."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def _reason(error: Exception) -> str:
    """One short line on why a store did not take our runs."""
    text = " ".join(str(error).split())
    if isinstance(error, Timeout):
        return f"another sync has been at work for {LOCK_SECONDS} s"
    for sign in ("Connection refused", "timed out", "Name or service not known", "database is locked"):
        if sign in text:
            return sign if sign != "timed out" else f"no answer within {REQUEST_SECONDS} s"
    cause = re.search(r"Caused by \w+\([\"'](.*?)[\"']\)", text)
    return cause[1] if cause else _public(f"{type(error).__name__}: {text}")[:200]
