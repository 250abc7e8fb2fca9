"""What a report keeps of each condition besides figures: which cells it is, their cost, an end of a log, a few items.

Small on purpose (reports are committed): texts are cut until all of it fits into `ALL` characters. Items are kept only
where a table stands on nothing but what this repository generates: texts of real data sets have licences of their own.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from common.experiments.compose import Table
from common.experiments.fingerprint import ROOT
from common.experiments.jobs import tail
from common.experiments.records import Cell, Record

ALL = 200_000  # characters of all logs and items of a report
LENGTHS = (1000, 400, 200, 100, 50)  # characters of a text: the first that lets all fit
FILES = 3  # of items
ENTRIES, FIELDS = 6, 20  # of a log or another list, of a mapping


def evidence(table: Table, cells: Iterable[tuple[Cell, Record]]) -> list[dict[str, Any]]:
    """One entry per condition with finished cells: key, seconds and tokens of each seed, which seeds are of which
    commit; resources, log and items of its first seed.

    Of each file of items the first and the last are kept: where a file has several stages, one of either end.
    """
    withheld = _withheld(table)
    done: dict[tuple[str, str], list[tuple[Cell, Record]]] = {}
    for cell, record in cells:
        if record.done:
            done.setdefault((cell.row, cell.column), []).append((cell, record))
    entries = []
    for (row, column), found in done.items():
        results = {str(cell.seed): record.result() for cell, record in found}
        tokens = {seed: sum(result["tokens"].values()) for seed, result in results.items() if result.get("tokens")}
        entries.append(
            {
                "row": row,
                "column": column,
                "keys": {str(cell.seed): record.folder.name for cell, record in found},
                "commits": _commits(results),
                "resources": found[0][1].config["resources"],
                "cpu_seconds": {seed: round(result["cpu_seconds"], 1) for seed, result in results.items()},
                "seconds": {seed: round(result["wall_seconds"], 1) for seed, result in results.items()},
                **({"tokens": tokens} if tokens else {}),
                "seed": found[0][0].seed,
                **({"withheld": withheld} if withheld else {}),
            }
        )
    folders = [found[0][1].folder for found in done.values()]
    texts = [
        {"log": tail(folder / "log.txt", ENTRIES), "items": {} if withheld else _items(folder / "items")}
        for folder in folders
    ]
    return [entry | kept for entry, kept in zip(entries, _fitting(texts), strict=True)]


def _commits(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each commit that cells were computed at, with their seeds; `dirty`: with changes that no commit has."""
    seeds: dict[tuple[str | None, bool], list[int]] = {}
    for seed, result in results.items():
        seeds.setdefault((result.get("commit"), bool(result.get("dirty"))), []).append(int(seed))
    return [{"commit": commit, "dirty": dirty, "seeds": own} for (commit, dirty), own in seeds.items()]


def _withheld(table: Table) -> list[str]:
    """Data whose texts a report must not repeat: the sets that a table names; beyond the tiny scale also files of
    one's own, which it does not."""
    return table.needs.data or ([] if table.scale == "tiny" else ["files of your own"])


def _items(folder: Path) -> dict[str, list[Any]]:
    """The first and the last item of the first files."""
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.jsonl"))[:FILES]:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        found[path.stem] = [json.loads(line) for line in [*lines[:1], *lines[1:][-1:]]]
    return found


def _fitting(texts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All texts cut to one length; where even the least is too long, the last conditions keep nothing."""
    short: list[dict[str, Any]] = []
    for length in LENGTHS:
        short = [_short(each, length) for each in texts]
        if sum(map(_size, short)) <= ALL:
            return short
    return [
        each if total <= ALL else {"log": [], "items": {}}
        for each, total in zip(short, accumulate(map(_size, short)), strict=True)
    ]


def _size(value: Any) -> int:
    return len(json.dumps(value))


def _short(value: Any, length: int) -> Any:
    """`value` with every text cut, and every list and mapping to its first entries; NaN, which JSON lacks, as text."""
    if isinstance(value, str):
        return _cut(value, length)
    if isinstance(value, dict):
        return {_cut(str(key), length): _short(each, length) for key, each in list(value.items())[:FIELDS]}
    if isinstance(value, list):
        more = [f"… {len(value) - ENTRIES} more"] if len(value) > ENTRIES else []
        return [*(_short(each, length) for each in value[:ENTRIES]), *more]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _cut(text: str, length: int) -> str:
    """At most `length` characters, without the place of this checkout or of the user."""
    text = text.replace(str(ROOT), ".").replace(str(Path.home()), "~")
    return text if len(text) <= length else text[: length - 1] + "…"
