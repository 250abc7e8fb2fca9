"""The record: one folder per cell, plain files, each written to a temporary name and renamed.

    runs/<paper>/cells/<key>/    config.yaml  status  result.json  metrics.jsonl  prune  items/  log.txt  error.txt
                                 lock
    runs/<paper>/tables/<name>.json           which cells a table is made of
    runs/<paper>/artifacts/                   pieces shared between cells

A cell is done when `result.json` exists. Its lock is a kernel lock on the file `lock`, so that a dead owner
holds nothing; a status `running` without a held lock is an interrupted cell.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from common.experiments.errors import UserError
from common.files import write_atomically

STATES = ("pending", "running", "interrupted", "preempted", "timed out", "done", "pruned", "failed")


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_json(path: Path) -> Any:
    """Parse a record file; a corrupted one is a UserError that names it and the way out."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is corrupted ({type(error).__name__}: {error}); nothing was changed. "
            f"To compute it again, move it away: mv '{path}' '{path}.corrupt'"
        ) from error


@dataclass(frozen=True)
class Cell:
    """One run to make: a row's settings on one column (data set) at one seed.

    Attributes:
        settings: the resolved values of the paper's `Settings` dataclass.
        resources: cpus, nodes, tasks, gpus, memory_gb, expected minutes. Only `cpus` and `tasks` can change bits, so
            only they are hashed.
        code_hash: of the code that the run function can reach.
        overrides: the user's, already part of `settings`; kept to explain them.
    """

    paper: str
    table: str
    scale: str
    row: str
    column: str
    seed: int
    settings: Mapping[str, Any]
    resources: Mapping[str, float]
    config_hash: str
    code_hash: str
    overrides: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Names the cell's folder: same settings, seed, threads and code, same key."""
        return f"{self.config_hash}-{self.code_hash}"

    @property
    def label(self) -> str:
        """How the cell is called in progress lines."""
        return " · ".join([self.row, self.column, f"seed {self.seed}", *self.overrides])


@dataclass(frozen=True)
class Record:
    """The folder of one cell."""

    folder: Path

    @property
    def done(self) -> bool:
        return (self.folder / "result.json").exists()

    @cached_property
    def config(self) -> dict[str, Any]:
        """What was frozen before the launch.

        Raises:
            UserError: the file is corrupted.
        """
        path = self.folder / "config.yaml"
        try:
            config = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise UserError(f"{path} is corrupted; delete the folder to compute the cell again") from error
        if not isinstance(config, dict) or "settings" not in config:
            raise UserError(f"{path} is corrupted; delete the folder to compute the cell again")
        return config

    def freeze(self, cell: Cell, provenance: Mapping[str, Any]) -> None:
        """Write the cell's resolved configuration once; later edits of configs or code do not reach it."""
        path = self.folder / "config.yaml"
        if not path.exists():
            config = {**asdict(cell), "overrides": list(cell.overrides), **provenance, "created_at": now()}
            write_atomically(path, yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True))

    def status(self) -> dict[str, Any]:
        """Last written status; `{"state": "pending"}` before the first."""
        try:
            status: dict[str, Any] = json.loads((self.folder / "status").read_text())
        except FileNotFoundError:
            return {"state": "pending"}
        except ValueError:
            status = {}
        if not isinstance(status, dict) or status.get("state") not in STATES:
            return {"state": "failed", "error": f"{self.folder / 'status'} is corrupted"}
        return status

    def state(self) -> str:
        """One of STATES, from the files and the lock."""
        if self.done:
            return "done"
        state = str(self.status()["state"])
        if state == "running":
            with self.lock() as mine:
                return "interrupted" if mine else "running"
        return "pending" if state == "done" else state  # done without result.json: the result was moved away

    def set_state(self, state: str, **fields: Any) -> None:
        write_atomically(self.folder / "status", json.dumps({**self.status(), **fields, "state": state}))

    def result(self) -> dict[str, Any]:
        """What the cell computed. UserError where the file is no result."""
        result = read_json(self.folder / "result.json")
        if not isinstance(result, dict) or not {"metrics", "table", "row", "wall_seconds"} <= result.keys():
            raise UserError(f"{self.folder / 'result.json'} is no result; move it away to compute the cell again")
        return result

    def curves(self) -> dict[str, dict[int, float]]:
        """Metric -> step -> value of what the run logged (`Context.log`).

        A line torn by a kill is passed over, and of a step that was taken again after it the last line counts.
        """
        path = self.folder / "metrics.jsonl"
        found: dict[str, dict[int, float]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                values = json.loads(line)
                step = int(values.pop("step"))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            for name, value in values.items():
                if isinstance(value, int | float):
                    found.setdefault(name, {})[step] = float(value)
        return found

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the cell, or learn that somebody else does: yields True or False, never waits."""
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


@dataclass(frozen=True)
class Store:
    """All records of one paper."""

    runs: Path
    paper: str

    @property
    def artifacts(self) -> Path:
        return self.runs / self.paper / "artifacts"

    def record(self, key: str) -> Record:
        return Record(self.runs / self.paper / "cells" / key)

    def all_keys(self) -> list[str]:
        cells = self.runs / self.paper / "cells"
        return sorted(os.listdir(cells)) if cells.is_dir() else []

    def by_config(self) -> dict[str, list[str]]:
        """Hash of a configuration -> keys of its cells, one for each code that began it."""
        found: dict[str, list[str]] = {}
        for key in self.all_keys():
            found.setdefault(key.split("-")[0], []).append(key)
        return found

    def stale(self, cell: Cell, known: Mapping[str, Sequence[str]]) -> list[Record]:
        """Done cells with the same configuration, computed by other code; newest first.

        Args:
            known: what `by_config` says.
        """
        same = [self.record(key) for key in known.get(cell.config_hash, ()) if key != cell.key]
        done = [record for record in same if record.done]
        return sorted(done, key=lambda record: (record.folder / "result.json").stat().st_mtime, reverse=True)

    def manifest(self, name: str) -> Path:
        return self.runs / self.paper / "tables" / f"{name}.json"

    def write_manifest(self, name: str, head: Mapping[str, Any], cells: list[dict[str, Any]]) -> Path:
        """Note which cells make up a table.

        Earlier entries stay, except those of the same row, column and seed, and of rows or columns that `head`
        does not name any more.
        """
        path = self.manifest(name)
        with FileLock(_made(path.parent) / f".{name}.lock"):
            old = read_manifest(path)["cells"] if path.exists() else []
            kept = [cell for cell in old if cell["row"] in head["rows"] and cell["column"] in head["columns"]]
            new = {(cell["row"], cell["column"], cell["seed"]): cell for cell in [*kept, *cells]}
            ordered = sorted(new.values(), key=lambda cell: (cell["row"], cell["column"], cell["seed"]))
            text = json.dumps({**head, "cells": ordered}, indent=1)
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_atomically(path, text)
        return path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_manifest(path: Path) -> dict[str, Any]:
    """A table's manifest, checked for what every reader relies on.

    Raises:
        UserError: it is none, or of another version.
    """
    manifest = read_json(path)
    wanted = {"paper", "table", "scale", "kind", "overrides", "rows", "columns", "cells"}
    if not isinstance(manifest, dict) or not wanted <= manifest.keys():
        raise UserError(f"{path} is no manifest of this version; move it away, the next `repro table` writes it again")
    return manifest


def manifests(runs: Path) -> list[Path]:
    """Every table manifest below the runs folder."""
    return sorted(path for path in runs.glob("*/tables/*.json") if not path.name.endswith(".synced.json"))
