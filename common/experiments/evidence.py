"""What a report keeps of each condition besides figures: cost per seed, the end of its log, and a few items.

Small on purpose (reports are committed). Items are kept only where a table stands on nothing but what this repository
generates: texts of real data sets have licences of their own.
"""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from common.experiments.compose import Table
from common.experiments.fingerprint import ROOT
from common.experiments.jobs import tail
from common.experiments.records import Cell, Record

FILES, ITEMS = 3, 2  # files of items, and items of each
LINES = 6  # of a log
LENGTH = 400  # characters of an item's value, or of a line


def evidence(table: Table, cells: Iterable[tuple[Cell, Record]]) -> list[dict[str, Any]]:
    """One entry per condition with finished cells: seconds and tokens of each seed; log and items of its first seed."""
    done: dict[tuple[str, str], list[tuple[Cell, Record]]] = {}
    for cell, record in cells:
        if record.done:
            done.setdefault((cell.row, cell.column), []).append((cell, record))
    entries = []
    for (row, column), found in done.items():
        results = {str(cell.seed): record.result() for cell, record in found}
        tokens = {seed: sum(result["tokens"].values()) for seed, result in results.items() if result.get("tokens")}
        cell, record = found[0]
        entries.append(
            {
                "row": row,
                "column": column,
                "seconds": {seed: round(result["wall_seconds"], 1) for seed, result in results.items()},
                **({"tokens": tokens} if tokens else {}),
                "seed": cell.seed,
                "log": [_cut(line) for line in tail(record.folder / "log.txt", LINES)],
                "items": {} if table.needs.data else _items(record.folder / "items"),
            }
        )
    return entries


def _items(folder: Path) -> dict[str, list[Any]]:
    """The first items of the first files."""
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.jsonl"))[:FILES]:
        with open(path, encoding="utf-8") as file:
            found[path.stem] = [_short(json.loads(line)) for line in islice(file, ITEMS)]
    return found


def _short(value: Any) -> Any:
    """`value` with every text cut, and every list and mapping to its first entries."""
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, dict):
        return {_cut(str(key)): _short(each) for key, each in islice(value.items(), 20)}
    if isinstance(value, list):
        return [_short(each) for each in value[:5]]
    return value


def _cut(text: str) -> str:
    """At most `LENGTH` characters, without the place of this checkout or of the user."""
    text = text.replace(str(ROOT), ".").replace(str(Path.home()), "~")
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"
